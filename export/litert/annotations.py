"""Checks what a user says of a model's inputs and outputs: normalization and labels.

>>> import keras
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
>>> checked_labels(model, [0, "one"])
['0', 'one']
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def checked_labels(model: keras.Model, labels: Any) -> list[str] | None:
    """Class labels as text.

    Args:
        model: Keras model with declared inputs.
        labels: A list, tuple or array (N,) of text or whole numbers, one for each
            channel of an output; or `None`.

    Returns:
        List of strings, or `None`.

    Raises:
        ValueError: If the labels are of another kind or number, or one is not a line.
    """
    if labels is None:
        return None
    rule = "labels must be a list of text or whole numbers in the classes' order"
    entries = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence):
        raise ValueError(f"{rule}. Received: {_shortened(labels)}")
    texts = []
    for entry in entries:
        entry = entry.item() if isinstance(entry, np.generic) else entry
        if isinstance(entry, bool) or not isinstance(entry, (str, int)):
            raise ValueError(f"{rule}. Received: {_shortened(entry)} among them")
        texts.append(_line(str(entry)))
    channels = [tensor.shape[-1] for tensor in model.outputs if len(tensor.shape) > 1]
    if None not in channels and len(texts) not in channels:
        raise ValueError(
            "there must be one label for each channel of the output: "
            f"{' or '.join(map(str, dict.fromkeys(channels))) or 'it has none'}. "
            f"Received: {len(texts)} labels"
        )
    return texts


def _line(label: str) -> str:
    """A label, refused if it would be no line, or several, in a file of labels."""
    is_text = not any("\ud800" <= char <= "\udfff" for char in label)
    if not (label.strip() and label.splitlines() == [label] and is_text):
        raise ValueError(
            "a label must be one line of text that is not blank: files of labels have "
            f"a line each. Received: {_shortened(label)}"
        )
    return label


def checked_normalization(
    model: keras.Model, normalization: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Means and standard deviations of the inputs' channels.

    Args:
        model: Keras model with declared inputs.
        normalization: Pair of lists, one number for all channels or one for each; or
            `None`.

    Returns:
        Two float32 arrays (1,) or (channels,), or `None`.

    Raises:
        ValueError: If it is of another kind or number, or not positive and finite.
    """
    if normalization is None:
        return None
    channels = {tensor.shape[-1] for tensor in model.inputs}
    try:
        mean, std = (np.asarray(values, np.float32) for values in normalization)
        fits = (
            mean.ndim == std.ndim == 1
            and mean.size == std.size
            and (mean.size == 1 or None in channels or mean.size in channels)
            and bool(np.all(np.isfinite(mean)) and np.all(np.isfinite(std) & (std > 0)))
        )
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        counts = " or ".join(sorted({"1", *(str(c) for c in channels if c)}, key=int))
        raise ValueError(
            "normalization must be means and positive standard deviations, each a "
            f"list of {counts} numbers: one for all channels of the input, or one for "
            f"each. Received: {_shortened(normalization)}"
        )
    return mean, std


def _shortened(value: Any) -> str:
    """How a value is written, in at most some 80 characters of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
