"""Arrays out of `.npy` and `.npz` files that users name."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.datasets.splits import Splits


def load(path: Path) -> Splits:
    """Images and labels of an `.npz`.

    Args:
        path: Path of a file with `x` and `y`, or `x_train`, `y_train`, `x_test` and
            `y_test`.

    Returns:
        A `Splits`.

    Raises:
        ValueError: If the file cannot be read or holds anything else.
    """
    arrays = _read(path, zipped=True)
    train, test = (_part(path, arrays, part) for part in ("train", "test"))
    highest = max(int(labels.max()) for _, labels in (train, test))
    return Splits(_dataset(*train), _dataset(*test), None, classes=highest + 1)


def load_inputs(path: Path) -> NDArray:
    """Inputs of an `.npy`: numbers (N, ...), in the type that they are stored in.

    Args:
        path: Path of a file with one array of numbers.

    Raises:
        ValueError: If the file cannot be read, is empty, or holds what is no finite
            number.
    """
    array = _read(path, zipped=False)["array"]
    _images(path, "the array", array)
    return array


def _read(path: Path, zipped: bool) -> dict[str, NDArray]:
    suffix = ".npz" if zipped else ".npy"
    if path.exists() and (not path.is_file() or zipfile.is_zipfile(path) != zipped):
        save = "numpy.savez" if zipped else "numpy.save"
        raise ValueError(f"{path} is not an {suffix}, as {save} writes it")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not zipped:
            return {"array": loaded}
        with loaded as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    # NumPy raises whatever its readers of ZIP, zlib and headers stumbled over.
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} is not an {suffix} of plain arrays: {first_line}"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(
                f"{path} must hold arrays, as numpy.savez writes them. "
                f"Received: a member {name!r} that is none"
            )
    return arrays


def _dataset(images: NDArray, labels: NDArray) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((images, labels))


def _part(
    path: Path, arrays: dict[str, NDArray], part: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    names = [f"x_{part}", f"y_{part}"]
    names = names if set(names) <= set(arrays) else ["x", "y"]
    if not set(names) <= set(arrays):
        raise ValueError(
            f"{path} must hold x and y, or x_train, y_train, x_test and y_test. "
            f"Received: {sorted(arrays)}"
        )
    x, y = (arrays[name] for name in names)
    lengths = [str(len(array)) if array.ndim else "a single number" for array in (x, y)]
    if lengths[0] != lengths[1] or not x.size or not x.ndim:
        raise ValueError(
            f"{path}: {names[0]} and {names[1]} must have the same length, at "
            f"least 1. Received: {' and '.join(lengths)}"
        )
    return _images(path, names[0], x), _classes(path, names[1], y)


def _images(path: Path, name: str, array: NDArray) -> NDArray[np.float32]:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {name} must hold numbers. Received: {array.dtype}")
    if not array.ndim or not array.size:
        raise ValueError(
            f"{path}: {name} must hold at least one input. "
            f"Received: shape={array.shape}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        images = array.astype(np.float32)
    if not np.isfinite(images).all():
        first = np.argwhere(~np.isfinite(images))[0]
        raise ValueError(
            f"{path}: {name} must hold finite float32 numbers. "
            f"Received: {array[tuple(first)]} in input {first[0]}"
        )
    return images


def _classes(path: Path, name: str, array: NDArray) -> NDArray[np.int64]:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {name} must hold numbers. Received: {array.dtype}")
    if array.size != len(array):
        raise ValueError(
            f"{path}: {name} must hold one class number for each image. "
            f"Received: shape={array.shape}. Of one-hot labels save y.argmax(-1)."
        )
    array = array.reshape(len(array))
    values = array.astype(np.float64)
    is_class = (values >= 0) & (values < 2**63) & (values == np.rint(values))
    if not is_class.all():
        raise ValueError(
            f"{path}: {name} must hold class numbers 0, 1, 2, ... "
            f"Received: {array[~is_class][0]}"
        )
    return array.astype(np.int64)
