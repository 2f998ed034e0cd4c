"""Compiles functions, where the backend has graphs to offer."""

from collections.abc import Callable
from typing import Any

import keras

from dqa_keras.backend.running import runs_on


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """A chain of element-wise operations as one loop inside TensorFlow's graphs.

    TensorFlow runs such a chain one operation after the other, and each reads and
    writes the whole tensor: after 31 activations that made `predict` of ResNet-32 a
    quarter slower. XLA makes one loop of them. JAX does so by itself; PyTorch runs the
    chain as it stands. Outside a graph the function runs as it is: compiling costs
    more than a single eager call gains.

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
    if not runs_on("tensorflow"):
        # JAX takes arrays only, and a Keras variable is none.
        return lambda *tensors: function(*map(keras.ops.convert_to_tensor, tensors))
    import tensorflow as tf

    graph = tf.function(function, jit_compile=True, autograph=False)

    def run(*tensors: Any) -> Any:
        if tf.executing_eagerly():
            return function(*tensors)
        return graph(*map(tf.convert_to_tensor, tensors))

    return run


def compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one batch, as one graph where the backend has graphs to offer.

    The graph takes batches of any size, so that it is traced once; once more, with that
    size left open, if images of another size arrive.

    Example:
    >>> import numpy as np
    >>> double = compiled(lambda x: x * 2.0)
    >>> np.asarray(double(np.float32([[4.0, 7.0]]))).tolist()
    [[8.0, 14.0]]
    """
    if runs_on("torch"):
        import torch

        return torch.no_grad()(function)
    if not runs_on("tensorflow"):
        return function
    import tensorflow as tf

    graph: Any = None
    signature: Any = None

    def fits(x: Any) -> bool:
        pairs = zip(keras.tree.flatten(signature), keras.tree.flatten(x), strict=True)
        return all(spec.is_compatible_with(tensor) for spec, tensor in pairs)

    def run(x: Any) -> Any:
        nonlocal graph, signature
        x = keras.tree.map_structure(tf.convert_to_tensor, x)
        if graph is None or not fits(x):
            wanted = keras.tree.map_structure(
                lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), x
            )
            signature = keras.tree.map_structure(
                lambda old, new: old.most_specific_common_supertype([new]) or new,
                signature or wanted,
                wanted,
            )
            graph = tf.function(function, input_signature=[signature], autograph=False)
        return graph(x)

    return run
