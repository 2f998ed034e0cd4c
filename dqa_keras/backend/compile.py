"""Runs a chain of element-wise operations in one pass over memory.

TensorFlow runs them one after the other, and each reads and writes the whole tensor:
behind 31 activations that made `predict` of ResNet-32 a quarter slower. XLA makes one
loop of them. JAX does so by itself; PyTorch runs the chain as it stands.
"""

from collections.abc import Callable
from typing import Any

import keras


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, as one loop inside TensorFlow's graphs.

    Outside a graph it runs as it is: compiling costs more than a single eager call
    gains.

    Args:
        function: Function of tensors and Keras variables, in `keras.ops` only.
            Products must not be summed: XLA would contract them, which changes the
            last bit.

    Example:
    >>> import numpy as np
    >>> from keras import ops
    >>> halved = fused(lambda x: ops.round(ops.multiply(x, 0.5)))
    >>> np.asarray(halved(np.float32([4.0, 7.0]))).tolist()
    [2.0, 4.0]
    """
    if keras.backend.backend() != "tensorflow":
        # JAX takes arrays only, and a Keras variable is none.
        return lambda *tensors: function(*map(keras.ops.convert_to_tensor, tensors))
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True, autograph=False)

    def run(*tensors: Any) -> Any:
        if tf.executing_eagerly():
            return function(*tensors)
        return compiled(*map(tf.convert_to_tensor, tensors))

    return run
