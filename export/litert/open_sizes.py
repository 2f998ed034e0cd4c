"""Lets a model be converted whose inputs have sizes that are known only when it runs.

Two things stand in the way. `UpSampling2D` compares a size with 0 in Python: here it
becomes one resize whose size is computed. What repeats values, such as
`keras.ops.repeat`, does so by ops after which the converter knows not even the number
of channels, which LiteRT's convolutions must know: here a reshape tells it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

# By name: operations are no public classes.
_FORGETFUL = {"Repeat", "UpSampling1D", "UpSampling2D", "UpSampling3D"}


@contextmanager
def traceable(model: keras.Model) -> Iterator[list[str]]:
    """Within the context, a graph of open sizes can be made of what a model calls.

    Args:
        model: Keras model with declared inputs.

    Yields:
        A list that takes the names of what raises an error, the innermost first.
    """
    failed: list[str] = []
    wrapped: list[Any] = []
    try:
        for layer in model._flatten_layers():
            graph = getattr(layer, "_functional", None) or layer
            for operation in [layer, *getattr(graph, "_operations", ())]:
                if isinstance(operation, (keras.Model, keras.layers.InputLayer)):
                    continue
                if "call" not in vars(operation):  # not met before
                    operation.call = _traceable_call(operation, failed)
                    wrapped.append(operation)
        yield failed
    finally:
        for operation in wrapped:
            del operation.call


def _traceable_call(operation: Any, failed: list[str]) -> Callable:
    own = operation.call
    resize = _resize(operation)
    forgets = type(operation).__name__ in _FORGETFUL

    def call(*args: Any, **kwargs: Any) -> Any:
        if resize is not None:
            return resize(args[0])
        try:
            outputs = own(*args, **kwargs)
        except Exception:  # whatever it is: raised again, with the layer's name kept
            failed.append(f"layer {operation.name!r} ({type(operation).__name__})")
            raise
        return _reminded(outputs, operation, args) if forgets else outputs

    return call


def _resize(operation: Any) -> Callable | None:
    """What `UpSampling2D` does to images, if LiteRT has an op for it."""
    import tensorflow as tf

    if not isinstance(operation, keras.layers.UpSampling2D):
        return None
    method = operation.interpolation
    if method not in ("nearest", "bilinear"):
        return None
    return lambda x: tf.image.resize(
        x, tf.shape(x)[1:3] * tf.constant(operation.size), method
    )


def _reminded(output: Any, operation: Any, args: Any) -> Any:
    """What an operation gives, reshaped to the sizes that it must have."""
    import tensorflow as tf

    (x,) = args
    expected = operation.compute_output_spec(
        keras.KerasTensor(tuple(x.shape), x.dtype.name)
    )
    open_sizes = tf.shape(output)
    return tf.reshape(
        output,
        [
            open_sizes[axis] if size is None else size
            for axis, size in enumerate(expected.shape)
        ],
    )
