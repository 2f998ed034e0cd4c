"""Gradients of a scalar with respect to tensors on the way to it.

Keras has no operation for gradients; each backend has its own.

>>> from keras import ops
>>> def run(mark):
...     x = mark(ops.convert_to_tensor([1.0, 2.0]))
...     return ops.sum(mark(ops.square(x)) * 3.0)
>>> from dqa_keras.backend.gradients import marked_gradients
>>> [ops.convert_to_numpy(gradient).tolist() for gradient in marked_gradients(run)]
[[6.0, 12.0], [3.0, 3.0]]
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from dqa_keras.backend import running

Mark = Callable[[Any], Any]


def marked_gradients(run: Callable[[Mark], Any]) -> list[Any]:
    """The gradient with respect to each tensor that `run` marks.

    Args:
        run: Function that gives a scalar. It passes tensors through the function that
            it gets and goes on with what that returns.

    Returns:
        A tensor for each marked one, in the order of marking and of the same shape.

    Raises:
        NotImplementedError: If the backend has no gradients.
    """
    backend = running.name()
    if backend == "tensorflow":
        return _tensorflow(run)
    if backend == "torch":
        return _torch(run)
    if backend == "jax":
        return _jax(run)
    raise NotImplementedError(
        f"gradients need the backend tensorflow, torch or jax. Received: {backend}"
    )


def _tensorflow(run: Callable[[Mark], Any]) -> list[Any]:
    import tensorflow as tf

    marked: list[Any] = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def mark(x: Any) -> Any:
            x = tf.identity(x)
            tape.watch(x)
            marked.append(x)
            return x

        scalar = run(mark)
    return tape.gradient(
        scalar, marked, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def _torch(run: Callable[[Mark], Any]) -> list[Any]:
    import torch

    marked: list[Any] = []

    def mark(x: Any) -> Any:
        # What does not hang on a parameter has no gradient by itself.
        x = x if x.requires_grad else x.detach().requires_grad_()
        marked.append(x)
        return x

    with torch.enable_grad():  # the function around may run without
        gradients = torch.autograd.grad(run(mark), marked, allow_unused=True)
    return [
        torch.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip(marked, gradients, strict=True)
    ]


def _jax(run: Callable[[Mark], Any]) -> list[Any]:
    import jax

    shapes: list[Any] = []

    def look(x: Any) -> Any:
        shapes.append((x.shape, x.dtype))
        return x

    jax.eval_shape(lambda: run(look))

    def shifted(offsets: list[Any]) -> Any:
        # The gradient with respect to x is that with respect to what is added to x.
        following = iter(offsets)
        return run(lambda x: x + next(following))

    return jax.grad(shifted)([ops.zeros(shape, dtype) for shape, dtype in shapes])
