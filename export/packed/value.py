"""What a value of a region is before it becomes codes."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.packed.node import Node
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import Floats


@dataclasses.dataclass
class Unary:
    """An element-wise op that turns wide codes into integers.

    Args:
        code: `OpCode`.
        scale: Float. What an integer of 1 is worth.
        low: Float. The smallest value that it can have.
        high: Float. The largest.
        shift: Integer. The op's parameter. Defaults to `0`.
        weights: Array. The op's weights. Defaults to `None`: it has none.
    """

    code: OpCode
    scale: float
    low: float
    high: float
    shift: int = 0
    weights: NDArray | None = None


@dataclasses.dataclass
class Sum:
    """A value that is not rounded yet: `clip(sum * gain + bias + addends)`.

    The sum is that of a node's products, the integers of a `Unary`, or a product with
    the tensor `factor`.
    """

    shape: tuple[int, int, int]
    node: Node | None
    operand: int | None
    window: Window
    gain: Floats
    bias: Floats
    addends: list[tuple[int, Floats]]
    low: float = -np.inf
    high: float = np.inf
    unary: Unary | None = None
    factor: int | None = None

    @property
    def comes_in_parts(self) -> bool:
        """Whether what it becomes is put together afterwards, of channels."""
        return self.node is not None and self.node.kind in ("transpose", "grouped")

    @property
    def is_clipped(self) -> bool:
        """Whether it has a bound, so that nothing can be added any more."""
        return self.low > -np.inf or self.high < np.inf


@dataclasses.dataclass
class Input:
    """An input that is not read yet: `x * scale + offset`."""

    number: int
    scale: Floats
    offset: Floats


@dataclasses.dataclass
class Codes:
    """A tensor, seen with zeros around it."""

    tensor: int
    pads: tuple[int, ...] = (0, 0, 0, 0)
