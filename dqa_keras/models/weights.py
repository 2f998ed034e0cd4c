"""Weight files of the reference models: an `.npz`, float16, by name of the variable.

Half precision halves what the package weighs.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dqa_keras import files


def save_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the weights of a model, whole or not at all.

    Args:
        model: Keras model with unique layer names.
        path: Path of the `.npz` to write.

    Raises:
        ValueError: If a weight is too large for half precision, or not a number.
    """
    arrays: dict[str, Any] = {}
    for variable in model.variables:
        with np.errstate(over="ignore"):
            arrays[variable.path] = np.asarray(variable, np.float16)
        if not np.all(np.isfinite(arrays[variable.path])):
            raise ValueError(
                f"weights must be finite and at most {np.finfo(np.float16).max:.0f}, "
                f"to be stored in half precision. Received: others in {variable.path!r}"
            )
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_weights(model: keras.Model, weights: str | os.PathLike) -> None:
    """Fills a model with what `save_weights` wrote.

    Args:
        model: Keras model.
        weights: Path of an `.npz`, or the data set whose weights the package brings
            for a model of this name, such as `"camvid"`.

    Raises:
        ValueError: If the file cannot be read, lacks a variable or one has another
            shape.
    """
    path = Path(weights)
    if not path.suffix and len(path.parts) == 1:
        path = Path(__file__).with_name(f"{model.name}_{weights}.npz")
        if not path.exists():
            found = sorted(
                file.stem.removeprefix(f"{model.name}_")
                for file in path.parent.glob(f"{model.name}_*.npz")
            )
            raise ValueError(
                f"weights of {model.name!r} must be the path of an .npz, or one of "
                f"{found}. Received: {weights!r}"
            )
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read the weights {path}: {error}") from error
    with file as arrays:
        for variable in model.variables:
            if variable.path not in arrays:
                raise ValueError(f"{path} lacks the variable {variable.path!r}")
            value = arrays[variable.path]
            if value.shape != tuple(variable.shape):
                raise ValueError(
                    f"{variable.path!r} must have the shape {tuple(variable.shape)}. "
                    f"Received: {value.shape} in {path}"
                )
            variable.assign(value.astype(np.float32))
