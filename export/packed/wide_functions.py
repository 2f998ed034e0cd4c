"""Functions of a value: it becomes wide codes, which the runtime maps one by one."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import Unsupported
from dqa_keras.export.packed.node import Node
from dqa_keras.export.packed.value import Sum, Unary
from dqa_keras.export.packed.values import Emitter
from dqa_keras.export.plan.ops import KNOT_STEP, KNOTS, OpCode, Window


def _operand(emitter: Emitter, node: Node) -> Sum:
    """The value that a function is of, not yet in wide codes."""
    (tensor,) = node.inputs
    value = emitter.values[tensor]
    if not isinstance(value, Sum) or not emitter.alone(tensor) or value.comes_in_parts:
        return emitter.scaled(emitter.codes(tensor))
    return value


def _of(node: Node, operand: int, value: Sum, unary: Unary) -> Sum:
    ones = np.ones(value.shape[2])
    return Sum(value.shape, node, operand, Window(), ones, 0 * ones, [], unary=unary)


def hard_swish(emitter: Emitter, node: Node) -> Sum:
    """Hard swish, computed in whole numbers."""
    value = _operand(emitter, node)
    # Codes that hold 3 leave room for their products in 32 bits.
    operand = emitter.keep_wide(value, node.inputs[0], reach=3.0)
    step = float(emitter.program.tensors[operand].step[0])
    three = round(3 / step)
    if three < 8:
        raise Unsupported("a hard swish of values whose codes hardly tell 3 from 0")
    high = step * emitter.program.tensors[operand].peak
    unary = Unary(OpCode.HARD_SWISH, step**2 / 6, -3 / 8, high, three)
    return _of(node, operand, value, unary)


def function(emitter: Emitter, node: Node) -> Sum:
    """Any function, interpolated between its values at equal distances."""
    if node.function is None:
        raise Unsupported("a function that nothing defines")
    value = _operand(emitter, node)
    operand = emitter.keep_expected(value, node.inputs[0])
    step = float(emitter.program.tensors[operand].step[0])
    return _of(node, operand, value, _piecewise(node.function, step))


def prelu(emitter: Emitter, node: Node) -> Sum:
    """PReLU as `x + (slope - 1) min(x, 0)`: slopes may differ between channels."""
    value = _operand(emitter, node)
    operand = emitter.keep_expected(value, node.inputs[0])
    step = float(emitter.program.tensors[operand].step[0])
    unary = _piecewise(lambda x: np.minimum(x, 0), step)
    result = _of(node, operand, value, unary)
    result.gain = node.arrays["slopes"] - 1
    result.addends = [(operand, np.ones(value.shape[2]))]
    return result


def _piecewise(function: Callable[[NDArray], NDArray], step: float) -> Unary:
    codes = np.arange(KNOTS) * KNOT_STEP - 2.0**15
    with np.errstate(all="ignore"):
        values = function(codes * step)
        middle = function((codes[:-1] + KNOT_STEP / 2) * step)
    if not (np.isfinite(values).all() and np.isfinite(middle).all()):
        raise Unsupported("a function without a value for some numbers in its range")
    largest = max(float(np.abs(values).max()), 1e-30)
    error = np.abs(middle - (values[:-1] + values[1:]) / 2).max()
    if error > largest / 256:
        raise Unsupported(f"a function too steep for {KNOTS - 1} straight pieces")
    scale = largest / 32767
    knots = np.rint(values / scale).astype("<i2")
    return Unary(
        OpCode.PIECEWISE_LINEAR, scale / KNOT_STEP, values.min(), values.max(),
        weights=knots,
    )  # fmt: skip
