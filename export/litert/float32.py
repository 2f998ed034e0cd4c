"""Lets a model of any floating type compute in float32 while it is exported.

LiteRT's kernels are float32: the converter refuses float16, bfloat16 and float64. What
a mixed-precision model computes in float32 differs from what it was trained to compute
by less than its own rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

_FLOATS = ("float16", "bfloat16", "float64")


@contextmanager
def computing_in_float32(model: keras.Model) -> Iterator[None]:
    """Within the context, every layer of a model computes in float32.

    Dtype policies of layers, dtypes of inputs and of `keras.ops.cast` are set, and set
    back. Weights keep their dtype: layers cast them when they read them.

    Args:
        model: Keras model.
    """
    import tensorflow as tf

    restored: list[tuple[Any, str, Any]] = []

    def replace(target: Any, attribute: str, value: Any) -> None:
        restored.append((target, attribute, getattr(target, attribute)))
        setattr(target, attribute, value)

    default = keras.config.floatx()
    try:
        for layer in model._flatten_layers():
            if layer.dtype_policy.compute_dtype in _FLOATS:
                replace(layer, "_dtype_policy", _float32(layer.dtype_policy))
            for name, value in list(vars(layer).items()):
                # What layers compute of their weights once: `Normalization`'s mean.
                if isinstance(value, tf.Tensor) and value.dtype.name in _FLOATS:
                    replace(layer, name, tf.cast(value, tf.float32))
            graph = getattr(layer, "_functional", None) or layer
            for operation in getattr(graph, "_operations", ()):
                if not isinstance(operation, keras.Layer) and (
                    getattr(operation, "dtype", None) in _FLOATS
                ):
                    replace(operation, "dtype", "float32")
            for tensor in getattr(graph, "_inputs", ()):
                if tensor.dtype in _FLOATS:
                    replace(tensor, "_dtype", "float32")
        keras.config.set_floatx("float32")
        yield
    finally:
        keras.config.set_floatx(default)
        for target, attribute, value in reversed(restored):
            setattr(target, attribute, value)


def _float32(policy: Any) -> Any:
    """A policy that computes in float32 with the weights of another."""
    wanted = keras.dtype_policies.DTypePolicy("float32")
    # Layers cast weights only if their type is another one.
    wanted._variable_dtype = policy.variable_dtype
    return wanted
