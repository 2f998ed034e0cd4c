"""Loads the `.keras` files that users name."""

import os
from pathlib import Path

import keras


def load_keras(path: str | os.PathLike) -> keras.Model:
    """A model out of a `.keras` file, in Keras' safe mode: no code in it is run.

    Args:
        path: Path of a `.keras` file.

    Raises:
        ValueError: If the file is missing, damaged, or needs what is not registered.

    Example:
    >>> from dqa_keras.cli import loading
    >>> loading.load_keras("nothing.keras")
    Traceback (most recent call last):
        ...
    ValueError: no such model file: nothing.keras
    """
    if not Path(path).is_file():
        raise ValueError(f"no such model file: {path}")
    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    # Keras raises whatever its readers of ZIP, JSON and HDF5 stumbled over.
    except Exception as error:
        raise ValueError(
            f"cannot load {path}: {_reason(error)}. It must be a whole "
            ".keras file made of Keras' own layers and those of dqa_keras; a model "
            "with layers of its own is quantized and exported in Python."
        ) from error


def _reason(error: Exception) -> str:
    """The line of Keras' message that says what is wrong."""
    text = str(error).strip() or type(error).__name__
    # Keras tells of a layer that cannot be made with the layer's own words at the end.
    told = text.rpartition("Exception encountered: ")[2]
    return told.splitlines()[0].rstrip(".")
