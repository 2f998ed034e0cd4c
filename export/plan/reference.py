"""What a plan computes, in NumPy: the definition that every runtime must meet.

Whole tensors instead of strips, integers that cannot overflow, and the float32
operations of `dqa_keras.export.plan.Op` in their order.

>>> from dqa_keras.export.plan import records, reference
>>> sorted(code.name for code in records.Code)[:3]
['AVERAGE', 'BILINEAR', 'COMBINE']
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.records import (
    NONE,
    Buffer,
    Code,
    Kind,
    Op,
    Plan,
    Type,
    Window,
)

BLOCK = 16
GROUP = 4


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
        plan = self._plan
        numbers = [i for i, b in enumerate(plan.buffers) if b.kind == Kind.INPUT]
        values: dict[int, NDArray] = {
            number: np.asarray(x, np.float32)
            for number, x in zip(numbers, inputs, strict=True)
        }
        steps: dict[int, np.float32] = {}
        written = {}
        for number, op in enumerate(plan.ops):
            values[op.output] = self._run(op, values, steps)
            written[number] = values[op.output]
        outputs = [
            values[i] for i, b in enumerate(plan.buffers) if b.kind == Kind.OUTPUT
        ]
        return outputs, written

    def _array(self, offset: int, channels: int) -> NDArray[np.float32]:
        return np.frombuffer(self._constants, "<f4", channels, offset)

    def _run(
        self, op: Op, values: dict[int, NDArray], steps: dict[int, np.float32]
    ) -> NDArray:
        out = self._plan.buffers[op.output]
        operands = [link for link in op.links if not link.addend]
        if op.code == Code.READ:
            return self._read(op, values[operands[0].buffer], out, steps)
        if op.code in (Code.LOAD, Code.STORE):
            return values[operands[0].buffer]
        x = values[operands[0].buffer] if operands else None
        source = self._plan.buffers[operands[0].buffer] if operands else None
        if op.code == Code.MAXIMUM and x is not None:
            return _maximum(x, op.window, out)
        if op.code == Code.NEAREST and x is not None:
            return x.repeat(op.window.stride[0], 0).repeat(op.window.stride[1], 1)
        if op.code == Code.DEPTH_TO_SPACE and x is not None:
            return _depth_to_space(x, op.window.stride, out)
        if op.code == Code.BILINEAR and x is not None:
            return _bilinear(x, op.window.stride, op.shift)
        if op.code == Code.JOIN:
            shape = (out.height, out.width, out.channels)
            joined = np.full(shape, out.zero, np.int64)
            for link in operands:
                part = values[link.buffer]
                joined[..., link.value : link.value + part.shape[2]] = part
            return joined
        total = self._sums(op, x, source, out)
        return self._finish(op, total, source, out, values, steps)

    def _read(
        self,
        op: Op,
        x: NDArray[np.float32],
        out: Buffer,
        steps: dict[int, np.float32],
    ) -> NDArray[np.int64]:
        if op.weights != NONE:
            x = x * self._array(op.weights, out.channels)
        if op.multiplier != NONE:
            x = x + self._array(op.multiplier, out.channels)
        largest = np.max(np.abs(x))
        if largest < np.float32(1e-30):
            largest = np.float32(1)
        limit = np.float32(op.shift)
        steps[out.slot] = largest / limit
        return np.rint(np.clip(x * (limit / largest), -limit, limit)).astype(np.int64)

    def _sums(
        self, op: Op, x: NDArray | None, source: Buffer | None, out: Buffer
    ) -> NDArray[np.int64] | None:
        """Integer sums, with 0 for what lies outside the input."""
        if x is None or source is None:
            return None
        centred = x - (source.zero if source.type == Type.CODES else 0)
        w = op.window
        if op.code == Code.AVERAGE:
            return _sum_windows(centred, w, out)
        down, across = w.height, w.width
        if op.code == Code.WINOGRAD:
            down, across = winograd.TAPS, winograd.TAPS
        taps = down * across
        groups, blocks = -(-source.channels // GROUP), -(-out.channels // BLOCK)
        if op.code == Code.DEPTHWISE:
            flat = np.frombuffer(
                self._constants, np.int8, taps * blocks * BLOCK, op.weights
            )
            kernel = flat.reshape(w.height, w.width, -1)[..., : out.channels]
        else:
            count = blocks * taps * groups * BLOCK * GROUP
            flat = np.frombuffer(self._constants, np.int8, count, op.weights)
            split = flat.reshape(blocks, down, across, groups, BLOCK, GROUP)
            kernel = split.transpose(1, 2, 3, 5, 0, 4).reshape(
                down, across, groups * GROUP, blocks * BLOCK
            )[:, :, : source.channels, : out.channels]
        if op.code == Code.WINOGRAD:
            size = (out.height, out.width)
            return winograd.convolved(centred, kernel.astype(np.int64), w, size)
        total = np.zeros((out.height, out.width, out.channels))
        for ky in range(w.height):
            for kx in range(w.width):
                tap = _tap(centred, w, out, ky, kx, 0)
                weights = kernel[ky, kx].astype(np.float64)
                # Whole numbers far below 2^53: exact.
                product = tap * weights if op.code == Code.DEPTHWISE else tap @ weights
                total += product
        return total.astype(np.int64)

    def _finish(
        self,
        op: Op,
        total: NDArray[np.int64] | None,
        source: Buffer | None,
        out: Buffer,
        values: dict[int, NDArray],
        steps: dict[int, np.float32],
    ) -> NDArray:
        def scale(offset: int, buffer: Buffer) -> NDArray[np.float32]:
            array = self._array(offset, out.channels)
            return array if buffer.slot == NONE else array * steps[buffer.slot]

        bias = self._array(op.bias, out.channels)
        v = np.broadcast_to(bias, (out.height, out.width, out.channels))
        if total is not None and source is not None:
            part = total.astype(np.float32)
            if op.code == Code.AVERAGE:
                part = part * (np.float32(1) / _taps(source, op.window, out))
            v = part * scale(op.multiplier, source) + v
        for link in op.links:
            if link.addend:
                b = self._plan.buffers[link.buffer]
                zero = b.zero if b.type == Type.CODES else 0
                code = (values[link.buffer] - zero).astype(np.float32)
                v = v + code * scale(link.value, b)
        v = np.maximum(v, self._array(op.low, out.channels))
        v = np.minimum(v, self._array(op.high, out.channels))
        if out.type == Type.FLOAT:
            return v
        code = np.rint(v)
        if out.type == Type.CODES:
            code = code * self._array(op.power, out.channels) + np.float32(out.zero)
        return code.astype(np.int64)


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


def _maximum(x: NDArray, w: Window, out: Buffer) -> NDArray[np.int64]:
    lowest = int(x.min())
    taps = [
        _tap(x, w, out, ky, kx, lowest)
        for ky in range(w.height)
        for kx in range(w.width)
    ]
    return np.max(taps, axis=0).astype(np.int64)


def _depth_to_space(x: NDArray, factors: tuple[int, int], out: Buffer) -> NDArray:
    split = x.reshape(*x.shape[:2], *factors, out.channels).transpose(0, 2, 1, 3, 4)
    large = split.reshape(
        x.shape[0] * factors[0], x.shape[1] * factors[1], out.channels
    )
    return large[: out.height, : out.width]


def _between(size: int, s: int) -> tuple[NDArray, NDArray, NDArray]:
    """For an axis that grows s times: both neighbours, and the second's weight."""
    doubled = 2 * np.arange(size * s) + 1 + s
    second = doubled // (2 * s)
    return np.maximum(second - 1, 0), np.minimum(second, size - 1), doubled % (2 * s)


def _bilinear(x: NDArray, factors: tuple[int, int], shift: int) -> NDArray[np.int64]:
    above, below, wy = _between(x.shape[0], factors[0])
    left, right, wx = _between(x.shape[1], factors[1])
    wx, wy = wx[:, None], wy[:, None, None]
    rows = x[:, left] * (2 * factors[1] - wx) + x[:, right] * wx
    total = rows[above] * (2 * factors[0] - wy) + rows[below] * wy
    return (total + (1 << shift >> 1)) >> shift
