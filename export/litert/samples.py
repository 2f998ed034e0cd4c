"""The inputs that an export is checked with."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.backend import data_adapter
from dqa_keras.export.litert.conversion import TRIAL_SIZE, model_inputs

Shape = tuple[int | None, ...]


def random(model: keras.Model, shapes: Sequence[Shape], whole: bool) -> Any:
    """Four inputs, normally distributed, in the structure that the model takes.

    Args:
        model: Keras model.
        shapes: Sequence of shapes of the file's inputs, as of `input_shapes`.
        whole: Boolean. Whether they shall be whole numbers 0..255.
    """
    generator = np.random.default_rng(0)

    def sample(tensor: Any, sizes: Shape) -> NDArray:
        shape = [4, *(size or TRIAL_SIZE for size in sizes)]
        if "float" not in tensor.dtype:
            return generator.integers(0, 2, shape).astype(tensor.dtype)
        x = generator.normal(size=shape).astype(tensor.dtype)
        return np.rint(np.clip(64 * x + 128, 0, 255)) if whole else x

    inputs = model_inputs(model)
    arrays = map(sample, keras.tree.flatten(inputs), shapes)
    return keras.tree.pack_sequence_as(inputs, list(arrays))


def of_another_size(model: keras.Model, samples: Any, shapes: Sequence[Shape]) -> Any:
    """The first sample, twice as large in every open size: laid side by side.

    What takes a size mostly takes twice that: networks that halve images need even
    sizes.

    Args:
        model: Keras model.
        samples: Arrays in the structure that the model takes.
        shapes: Sequence of shapes of the file's inputs, as of `input_shapes`.

    Returns:
        Arrays in that structure; `None` if all sizes are fixed, or if the model does
        not take twice its samples' size.
    """
    if not any(None in shape for shape in shapes):
        return None
    arrays = [
        np.tile(array[:1], [1, *(2 if size is None else 1 for size in shape)])
        for array, shape in zip(keras.tree.flatten(samples), shapes, strict=True)
    ]
    larger = keras.tree.pack_sequence_as(model_inputs(model), arrays)
    try:
        model(larger, training=False)
    except Exception:  # whatever a layer says that has no use for this size
        return None
    return larger


def checked(model: keras.Model, samples: Any, shapes: Sequence[Shape]) -> Any:
    """A user's samples in the structure and types that the model takes.

    Args:
        model: Keras model.
        samples: A batch of inputs: arrays, in the structure that the model takes or in
            a dictionary by the inputs' names; or data as for `calibrate`, of which the
            first 32 inputs are taken.
        shapes: Sequence of shapes of the file's inputs, as of `input_shapes`.

    Returns:
        Arrays in the structure that the model takes.

    Raises:
        ValueError: If they do not fit the model's inputs, are none, or are not finite
            numbers.
    """
    samples = data_adapter.samples(model, samples)
    data_adapter.check_fit(model, samples)
    inputs = model_inputs(model)
    tensors = keras.tree.flatten(inputs)
    if isinstance(samples, dict) and {tensor.name for tensor in tensors} <= set(
        samples
    ):
        arrays = [samples[tensor.name] for tensor in tensors]
    else:
        arrays = keras.tree.flatten(samples)
    counts = sorted({len(array) for array in arrays})
    if len(counts) > 1 or counts[0] == 0:
        raise ValueError(
            "samples must be one batch of at least one input, as many of each. "
            f"Received: {' and '.join(map(str, counts))}"
        )
    for array, shape in zip(arrays, shapes, strict=True):
        sizes = np.shape(array)[1:]
        if any(want not in (None, got) for want, got in zip(shape, sizes, strict=True)):
            raise ValueError(
                f"samples must have the size of input_shape, {shape}. Received: {sizes}"
            )
    typed = [_typed(*pair) for pair in zip(tensors, arrays, strict=True)]
    return keras.tree.pack_sequence_as(inputs, typed)


def _typed(tensor: Any, samples: Any) -> NDArray:
    """Samples of one input as an array of its type, refused if that changes them."""
    rule = f"samples of input {tensor.name!r} must be"
    try:
        values = np.asarray(samples)
        if np.iscomplexobj(values) or values.dtype.kind in "USO":
            raise TypeError
        values = values.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{rule} numbers. Received: {getattr(samples, 'dtype', type(samples))}"
        ) from None
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{rule} finite. Received: NaN or infinite values")
    typed = values.astype(tensor.dtype)
    if "float" not in tensor.dtype and not np.array_equal(typed, values):
        raise ValueError(f"{rule} whole numbers that fit {tensor.dtype}")
    if not np.all(np.isfinite(typed)):
        raise ValueError(f"{rule} within the range of {tensor.dtype}")
    return typed
