"""What a value that is not rounded yet cannot exceed, whatever the input."""

from collections.abc import Sequence

import numpy as np

from dqa_keras.export.packed.value import Sum
from dqa_keras.export.plan.program import Floats, Tensor

Bounds = tuple[Floats, Floats]


def bounds_of(value: Sum, tensors: Sequence[Tensor]) -> Bounds | None:
    """The smallest and largest number that a value can be.

    Args:
        value: `Sum`.
        tensors: Sequence of the program's tensors, by number.

    Returns:
        Two float arrays (C,). `None` if a tensor that it reads has no known bounds.
    """
    ranges: dict[int, Bounds] = {}
    for tensor in (*(t for t, _ in value.addends), value.operand, value.factor):
        if tensor is not None:
            low, high = tensors[tensor].low, tensors[tensor].high
            if low is None or high is None:
                return None
            ranges[tensor] = (low, high)
    low, high = value.bias.copy(), value.bias.copy()
    for tensor, gain in value.addends:
        ends = [end * gain for end in ranges[tensor]]
        low += np.minimum(*ends)
        high += np.maximum(*ends)
    if value.operand is not None:
        ends = [end * value.gain for end in _integers(value, ranges)]
        low += np.minimum(*ends)
        high += np.maximum(*ends)
    return np.clip(low, value.low, value.high), np.clip(high, value.low, value.high)


def _integers(value: Sum, ranges: dict[int, Bounds]) -> Bounds:
    """The same of what an op computes from its operands, in units of the model."""
    if value.unary is not None:
        ones = np.ones(value.shape[2])
        return value.unary.low * ones, value.unary.high * ones
    if value.operand is None or value.node is None:
        raise ValueError("a sum of addends alone computes nothing of its own")
    if value.factor is not None:
        corners = [
            first * second
            for first in ranges[value.operand]
            for second in ranges[value.factor]
        ]
        return np.min(corners, axis=0), np.max(corners, axis=0)
    low, high = ranges[value.operand]
    # Zeros around the tensor count as well.
    lowest, highest = np.minimum(low, 0), np.maximum(high, 0)
    kernel = value.node.arrays.get("kernel", np.ones((1, 1, len(low))))
    if value.node.kind == "grouped":
        # Each output sees the channels of its group.
        shape = (-1, 1, 1, kernel.shape[3])
        made = len(kernel) * kernel.shape[3] // len(low)
        lowest, highest = (
            np.repeat(end.reshape(shape), made, axis=0) for end in (lowest, highest)
        )
    axes = (0, 1) if kernel.ndim == 3 else (1, 2, 3)
    downs = np.minimum(kernel * lowest, kernel * highest).sum(axis=axes)
    ups = np.maximum(kernel * lowest, kernel * highest).sum(axis=axes)
    # A transposed convolution has several sets of outputs.
    return (
        downs.reshape(-1, value.shape[2]).min(axis=0),
        ups.reshape(-1, value.shape[2]).max(axis=0),
    )
