"""Weight files of the reference models: an `.npz`, float16, by name of the variable.

Half precision halves what the package weighs.
"""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dqa_keras import files

_SHIPPED = Path(__file__).parent / "trained"


def save_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the weights of a model, whole or not at all.

    Args:
        model: Keras model with unique layer names.
        path: Path of the `.npz` to write.
    """
    arrays: dict[str, Any] = {
        variable.path: np.asarray(variable, np.float16) for variable in model.variables
    }
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_weights(model: keras.Model, weights: str | os.PathLike) -> None:
    """Fills a model with what `save_weights` wrote.

    Args:
        model: Keras model.
        weights: Path of an `.npz`, or the name of a data set that the model's shipped
            weights were trained on.

    Raises:
        ValueError: If there is no such file, it lacks a variable or one has another
            shape.
    """
    path = Path(weights)
    if not path.suffix:
        path = _SHIPPED / f"{model.name}_{weights}.npz"
        if not path.exists():
            names = [p.stem for p in sorted(_SHIPPED.glob(f"{model.name}_*.npz"))]
            raise ValueError(
                f"{model.name} has no shipped weights for {weights!r}. "
                f"Shipped: {names or 'none'}; or name an .npz file."
            )
    with np.load(path, allow_pickle=False) as arrays:
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
