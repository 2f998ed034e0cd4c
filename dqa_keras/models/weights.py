"""Weight files of the reference models: an `.npz`, float16, by name of the variable.

Half precision halves what the package weighs, and LZMA packs it closer than `numpy`'s
own compressed writer; `np.load` reads both. Weights that others trained are read as
PyTorch names and lays them out.
"""

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
    with (
        files.replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def load_weights(
    model: keras.Model,
    weights: str | os.PathLike,
    pytorch_name: Callable[[str], str] | None = None,
) -> None:
    """Fills a model with what `save_weights` wrote, or what was trained in PyTorch.

    Args:
        model: Keras model.
        weights: Path of an `.npz`, or the data set whose weights the package brings
            for a model of this name, such as `"camvid"`.
        pytorch_name: Function from a layer's name to what PyTorch calls it, for files
            with PyTorch's names and OIHW kernels. Defaults to `None`: those are
            refused.

    Raises:
        ValueError: If the file cannot be read, lacks a variable or one has another
            shape.
    """
    path = Path(weights)
    if not path.suffix and len(path.parts) == 1:
        path = Path(__file__).with_name(f"{model.name}_{weights}.npz")
        if not path.exists():
            known = sorted(
                file.stem.removeprefix(f"{model.name}_")
                for file in path.parent.glob(f"{model.name}_*.npz")
            )
            raise ValueError(
                f"weights of {model.name!r} must be the path of an .npz, or one of "
                f"{known}. Received: {weights!r}"
            )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    # NumPy raises whatever its readers of ZIP, LZMA and headers stumbled over.
    except Exception as error:
        raise ValueError(f"cannot read the weights {path}: {error}") from error
    # Keras names its variables `layer/kernel`, PyTorch `layer.weight`.
    if pytorch_name and not any("/" in name for name in arrays):
        tensors = list(_from_pytorch(model, pytorch_name))
    else:
        tensors = [_Tensor(v.path, v, None) for v in model.variables]
    for name, variable, axes in tensors:
        if name not in arrays:
            raise ValueError(f"{path} lacks the variable {name!r}")
        value = arrays[name]
        if axes and value.ndim == len(axes):
            value = value.transpose(axes)
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"{name!r} must have the shape {tuple(variable.shape)}. "
                f"Received: {value.shape} in {path}"
            )
        variable.assign(value.astype(np.float32))


class _Tensor(NamedTuple):
    """The name of an array, the variable it fills, and how its axes are ordered."""

    name: str
    variable: Any
    axes: tuple[int, ...] | None


_PYTORCH_PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _from_pytorch(
    model: keras.Model, pytorch_name: Callable[[str], str]
) -> Iterator[_Tensor]:
    for layer in model.layers:
        for variable in layer.variables:
            name = f"{pytorch_name(layer.name)}.{_PYTORCH_PARTS[variable.name]}"
            axes: tuple[int, ...] | None = None
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                axes = (2, 3, 0, 1)  # C1HW to HWC1
            elif len(variable.shape) == 4:
                axes = (2, 3, 1, 0)  # OIHW to HWIO
            elif len(variable.shape) == 2:
                axes = (1, 0)
            yield _Tensor(name, variable, axes)
