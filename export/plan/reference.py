"""What a plan computes, in NumPy: the definition that every runtime must meet.

Whole tensors instead of strips, integers that cannot overflow, and the float32
operations of `dqa_keras.export.plan.records.Op` in their order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.ops import (
    BLOCK,
    GROUP,
    KNOT_STEP,
    KNOTS,
    OpCode,
    Window,
)
from dqa_keras.export.plan.records import NONE, Buffer, Kind, Op, Plan, Type


class Reference:
    """Executes a plan.

    Args:
        plan: `Plan`.
        constants: Bytes of its weights and arrays.
    """

    def __init__(self, plan: Plan, constants: bytes) -> None:
        self._plan = plan
        self._constants = constants

    def __call__(
        self, inputs: Sequence[NDArray[np.float32]]
    ) -> tuple[list[NDArray[np.float32]], dict[int, NDArray]]:
        """Runs the plan.

        Args:
            inputs: A float32 array (H, W, C) for each input.

        Returns:
            The outputs, and what each op (by number) wrote.
        """
        buffers = self._plan.buffers
        numbers = [i for i, b in enumerate(buffers) if b.kind == Kind.INPUT]
        run = _Run(self._plan, self._constants)
        for number, x in zip(numbers, inputs, strict=True):
            run.values[number] = np.asarray(x, np.float32)
        written = {}
        for number, op in enumerate(self._plan.ops):
            written[number] = run.values[op.output] = FUNCTIONS[op.code](run, op)
        outputs = [
            run.values[i] for i, b in enumerate(buffers) if b.kind == Kind.OUTPUT
        ]
        return outputs, written


class _Run:
    """What the ops of one run share.

    Args:
        plan: `Plan`.
        constants: Bytes of its weights and arrays.
    """

    def __init__(self, plan: Plan, constants: bytes) -> None:
        self.buffers = plan.buffers
        self.constants = constants
        self.values: dict[int, NDArray] = {}  # by buffer
        self.steps: dict[int, np.float32] = {}  # by slot

    def array(self, offset: int, channels: int) -> NDArray[np.float32]:
        """An array of a number for each output channel."""
        return np.frombuffer(self.constants, "<f4", channels, offset)

    def operand(self, op: Op, operand: int = 0) -> tuple[NDArray, Buffer]:
        """An operand's values and buffer."""
        number = op.links[operand].buffer
        return self.values[number], self.buffers[number]

    def centred(self, op: Op, operand: int = 0) -> tuple[NDArray, Buffer]:
        """The same, but 0 stands for 0."""
        x, source = self.operand(op, operand)
        return x - (source.zero if source.type == Type.CODES else 0), source

    def finish(
        self, op: Op, total: NDArray[np.int64] | NDArray[np.float32] | None
    ) -> NDArray:
        """From the sums of an op, if it has any, to what it writes."""
        out = self.buffers[op.output]

        def scale(offset: int, buffer: Buffer) -> NDArray[np.float32]:
            array = self.array(offset, out.channels)
            return array if buffer.slot == NONE else array * self.steps[buffer.slot]

        bias = self.array(op.bias, out.channels)
        v = np.broadcast_to(bias, (out.height, out.width, out.channels))
        if total is not None:
            _, source = self.operand(op)
            v = total.astype(np.float32) * scale(op.multiplier, source) + v
        for link in op.links:
            if link.addend:
                b = self.buffers[link.buffer]
                zero = b.zero if b.type == Type.CODES else 0
                code = (self.values[link.buffer] - zero).astype(np.float32)
                v = v + code * scale(link.value, b)
        v = np.maximum(v, self.array(op.low, out.channels))
        v = np.minimum(v, self.array(op.high, out.channels))
        if out.type == Type.FLOAT:
            return v
        code = np.rint(v)
        if out.type == Type.CODES:
            code = code * self.array(op.power, out.channels) + np.float32(out.zero)
        return code.astype(np.int64)


def _quantize_input(run: _Run, op: Op) -> NDArray[np.int64]:
    x, _ = run.operand(op)
    out = run.buffers[op.output]
    if op.weights != NONE:
        x = x * run.array(op.weights, out.channels)
    if op.multiplier != NONE:
        x = x + run.array(op.multiplier, out.channels)
    largest = np.max(np.abs(x))
    if largest < np.float32(1e-30):
        largest = np.float32(1)
    limit = np.float32(op.shift)
    run.steps[out.slot] = largest / limit
    return np.rint(np.clip(x * (limit / largest), -limit, limit)).astype(np.int64)


def _copy(run: _Run, op: Op) -> NDArray:
    x, _ = run.operand(op)
    return x


def _weights(run: _Run, op: Op, taps: tuple[int, int]) -> NDArray[np.int8]:
    """The weights of a convolution, (taps, taps, I, O)."""
    _, source = run.operand(op)
    out = run.buffers[op.output]
    groups, blocks = -(-source.channels // GROUP), -(-out.channels // BLOCK)
    size = op.code.rule.weights.size(op.window, source.channels, out.channels)
    flat = np.frombuffer(run.constants, np.int8, size, op.weights)
    split = flat.reshape(blocks, *taps, groups, BLOCK, GROUP)
    whole = split.transpose(1, 2, 3, 5, 0, 4).reshape(
        *taps, groups * GROUP, blocks * BLOCK
    )
    return whole[:, :, : source.channels, : out.channels]


def _conv(run: _Run, op: Op) -> NDArray:
    x, _ = run.centred(op)
    w, out = op.window, run.buffers[op.output]
    kernel = _weights(run, op, (w.height, w.width)).astype(np.float64)
    # Whole numbers far below 2^53: exact.
    total = sum(
        _tap(x, w, out, ky, kx, 0) @ kernel[ky, kx]
        for ky in range(w.height)
        for kx in range(w.width)
    )
    return run.finish(op, np.asarray(total).astype(np.int64))


def _depthwise(run: _Run, op: Op) -> NDArray:
    x, source = run.centred(op)
    w, out = op.window, run.buffers[op.output]
    size = op.code.rule.weights.size(w, source.channels, out.channels)
    flat = np.frombuffer(run.constants, np.int8, size, op.weights)
    kernel = flat.reshape(w.height, w.width, -1)[..., : out.channels]
    total = sum(
        _tap(x, w, out, ky, kx, 0) * kernel[ky, kx].astype(np.float64)
        for ky in range(w.height)
        for kx in range(w.width)
    )
    return run.finish(op, np.asarray(total).astype(np.int64))


def _winograd(run: _Run, op: Op) -> NDArray:
    x, _ = run.centred(op)
    out = run.buffers[op.output]
    kernel = _weights(run, op, (winograd.TAPS, winograd.TAPS)).astype(np.int64)
    size = (out.height, out.width)
    return run.finish(op, winograd.convolved(x, kernel, op.window, size))


def _hard_swish(run: _Run, op: Op) -> NDArray:
    x, _ = run.operand(op)
    return run.finish(op, x * np.clip(x + op.shift, 0, 2 * op.shift))


def _piecewise_linear(run: _Run, op: Op) -> NDArray:
    x, _ = run.operand(op)
    knots = np.frombuffer(run.constants, "<i2", KNOTS, op.weights).astype(np.int64)
    i, r = np.divmod(x + 2**15, KNOT_STEP)
    return run.finish(op, knots[i] * (KNOT_STEP - r) + knots[i + 1] * r)


def _multiply(run: _Run, op: Op) -> NDArray:
    first, second = (run.centred(op, operand)[0] for operand in range(2))
    return run.finish(op, first * second)


def _add(run: _Run, op: Op) -> NDArray:
    return run.finish(op, None)


def _average(run: _Run, op: Op) -> NDArray:
    x, source = run.centred(op)
    out = run.buffers[op.output]
    total = _sum_windows(x, op.window, out).astype(np.float32)
    return run.finish(op, total * (np.float32(1) / _taps(source, op.window, out)))


def _max_pool(run: _Run, op: Op) -> NDArray[np.int64]:
    x, _ = run.operand(op)
    w, out = op.window, run.buffers[op.output]
    lowest = int(x.min())
    taps = [
        _tap(x, w, out, ky, kx, lowest)
        for ky in range(w.height)
        for kx in range(w.width)
    ]
    return np.max(taps, axis=0).astype(np.int64)


def _nearest(run: _Run, op: Op) -> NDArray:
    x, _ = run.operand(op)
    return x.repeat(op.window.stride[0], 0).repeat(op.window.stride[1], 1)


def _bilinear(run: _Run, op: Op) -> NDArray[np.int64]:
    x, _ = run.operand(op)
    factors = op.window.stride
    above, below, wy = _between(x.shape[0], factors[0])
    left, right, wx = _between(x.shape[1], factors[1])
    wx, wy = wx[:, None], wy[:, None, None]
    rows = x[:, left] * (2 * factors[1] - wx) + x[:, right] * wx
    total = rows[above] * (2 * factors[0] - wy) + rows[below] * wy
    return (total + (1 << op.shift >> 1)) >> op.shift


def _concat(run: _Run, op: Op) -> NDArray[np.int64]:
    out = run.buffers[op.output]
    concatenated = np.full((out.height, out.width, out.channels), out.zero, np.int64)
    for link in op.links:
        part = run.values[link.buffer]
        concatenated[..., link.value : link.value + part.shape[2]] = part
    return concatenated


def _depth_to_space(run: _Run, op: Op) -> NDArray:
    x, _ = run.operand(op)
    factors, out = op.window.stride, run.buffers[op.output]
    split = x.reshape(*x.shape[:2], *factors, out.channels).transpose(0, 2, 1, 3, 4)
    large = split.reshape(
        x.shape[0] * factors[0], x.shape[1] * factors[1], out.channels
    )
    return large[: out.height, : out.width]


def _gather(run: _Run, op: Op) -> NDArray[np.int64]:
    x, source = run.operand(op)
    out = run.buffers[op.output]
    channels = np.frombuffer(run.constants, "<u2", out.channels, op.weights)
    seen = _tap(x, op.window, out, 0, 0, source.zero)
    return seen[..., channels].astype(np.int64)


# What each op computes.
FUNCTIONS: dict[OpCode, Callable[[_Run, Op], NDArray]] = {
    OpCode.QUANTIZE_INPUT: _quantize_input,
    OpCode.LOAD: _copy,
    OpCode.STORE: _copy,
    OpCode.CONV: _conv,
    OpCode.DEPTHWISE: _depthwise,
    OpCode.ADD: _add,
    OpCode.AVERAGE: _average,
    OpCode.MAX_POOL: _max_pool,
    OpCode.NEAREST: _nearest,
    OpCode.BILINEAR: _bilinear,
    OpCode.CONCAT: _concat,
    OpCode.DEPTH_TO_SPACE: _depth_to_space,
    OpCode.WINOGRAD: _winograd,
    OpCode.HARD_SWISH: _hard_swish,
    OpCode.PIECEWISE_LINEAR: _piecewise_linear,
    OpCode.MULTIPLY: _multiply,
    OpCode.GATHER: _gather,
}


def _tap(
    x: NDArray, w: Window, out: Buffer, ky: int, kx: int, fill: int
) -> NDArray[np.float64]:
    """What tap (ky, kx) sees for every output, `fill` outside the input."""
    rows = np.arange(out.height) * w.stride[0] - w.top + ky * w.dilation[0]
    columns = np.arange(out.width) * w.stride[1] - w.left + kx * w.dilation[1]
    inside = ((rows >= 0) & (rows < x.shape[0]))[:, None] & (
        (columns >= 0) & (columns < x.shape[1])
    )
    seen = x[rows.clip(0, x.shape[0] - 1)][:, columns.clip(0, x.shape[1] - 1)]
    return np.where(inside[..., None], seen, fill).astype(np.float64)


def _sum_windows(x: NDArray, w: Window, out: Buffer) -> NDArray[np.int64]:
    total: Any = 0
    for ky in range(w.height):
        for kx in range(w.width):
            total = total + _tap(x, w, out, ky, kx, 0)
    return total.astype(np.int64)


def _taps(source: Buffer, w: Window, out: Buffer) -> NDArray[np.float32]:
    """How many inputs each window covers, (H, W, 1)."""
    ones = np.ones((source.height, source.width, 1))
    return _sum_windows(ones, w, out).astype(np.float32)


def _between(size: int, s: int) -> tuple[NDArray, NDArray, NDArray]:
    """For an axis that grows s times: both neighbours, and the second's weight."""
    doubled = 2 * np.arange(size * s) + 1 + s
    second = doubled // (2 * s)
    return np.maximum(second - 1, 0), np.minimum(second, size - 1), doubled % (2 * s)
