"""Turns a region's nodes into integer operations with quantized weights.

A chain such as convolution, sum, ReLU, quantizer becomes one operation: the integer sum
is scaled, added to, clipped and rounded in one go, so nothing in between needs memory.
What no quantizer rounds but must be kept, a linear bottleneck for instance, gets codes
of its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.plan import NONE, Code, Type, Window
from dqa_keras.export.regions import Node, Reader, Region, Unsupported

Floats = NDArray[np.float64]

BLOCK = 16  # output channels computed together
GROUP = 4  # input channels multiplied together

_WEIGHT = 127
_WIDE = 32767

# How far beyond what random samples show a range is trusted to reach.
_MARGIN = 8.0

# Bits of values that no quantizer rounds, where their range is known. Seven, so that a
# product of codes and weights and the next one's fit 16 bits together; the error is far
# below that of the quantizers around.
_LINEAR_BITS = 7

# Interpolated codes are rounded to this many levels: with more, sums of products would
# have to leave 16 bits after every step.
_BILINEAR_PEAK = 127

_LARGEST = float(np.finfo(np.float32).max)

_PASSING = {"maximum", "nearest", "concat", "widen", "pad"}


@dataclasses.dataclass
class Packing:
    """How codes of a tensor may be stored: as a quantizer prescribes."""

    bits: int
    extra_bits: int
    signed: bool
    mask: NDArray[np.bool_]


@dataclasses.dataclass
class Tensor:
    """Codes of an activation.

    Args:
        shape: Height, width, channels.
        type: `Type`.
        step: Float array (C,). What one code is worth; with a `slot`, in units of that
            input's.
        zero: Integer. The code of 0. Defaults to `0`.
        peak: Integer. Largest code, or magnitude of a wide one.
        low: Float array (C,), smallest value, or `None` if it depends on the input.
        high: Float array (C,), the same for the largest.
        packing: `Packing`, or `None`: stored as it is.
        slot: Integer. The input whose magnitude scales the codes, or `NONE`.
    """

    shape: tuple[int, int, int]
    type: Type
    step: Floats
    zero: int = 0
    peak: int = 0
    low: Floats | None = None
    high: Floats | None = None
    packing: Packing | None = None
    slot: int = NONE


@dataclasses.dataclass
class Operation:
    """An `Op` on tensors, before it is known where they live.

    Args:
        code: `Code`.
        operands: List of tensors. An input's number if the code is READ.
        output: Integer. Tensor, or the number of an output if `is_output`.
        window: `Window`.
        places: List of integers. First channel of each operand of JOIN.
        addends: List of pairs: tensor, float32 array of scales.
        arrays: Dictionary of arrays: weights, multiplier, bias, low, high, power.
        shift: Integer, as in `Op`.
        name: String.
        is_output: Boolean. Whether it writes float32 values for the outside.
        products: Integer. Multiplications, for statistics.
    """

    code: Code
    operands: list[int]
    output: int
    window: Window = dataclasses.field(default_factory=Window)
    places: list[int] = dataclasses.field(default_factory=list)
    addends: list[tuple[int, NDArray]] = dataclasses.field(default_factory=list)
    arrays: dict[str, NDArray] = dataclasses.field(default_factory=dict)
    shift: int = 0
    name: str = ""
    is_output: bool = False
    products: int = 0


@dataclasses.dataclass
class Program:
    """A region as integer operations.

    Args:
        tensors: List of `Tensor`.
        operations: List of `Operation`, in an order in which they can run.
        inputs: List of shapes.
        outputs: List of shapes.
        bytes: Set of the inputs that are bytes instead of float32 values.
        quantized: Dictionary from a quantizer layer's name to its tensor.
    """

    tensors: list[Tensor]
    operations: list[Operation]
    inputs: list[tuple[int, int, int]]
    outputs: list[tuple[int, int, int]]
    quantized: dict[str, int]
    bytes: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class _Sum:
    """A value that is not rounded yet: `clip(sum * gain + bias + addends)`."""

    shape: tuple[int, int, int]
    node: Node | None
    operand: int | None
    window: Window
    gain: Floats
    bias: Floats
    addends: list[tuple[int, Floats]]
    low: float = -np.inf
    high: float = np.inf

    @property
    def is_clipped(self) -> bool:
        return self.low > -np.inf or self.high < np.inf


@dataclasses.dataclass
class _Input:
    """An input that is not read yet: `x * scale + offset`."""

    number: int
    scale: Floats
    offset: Floats


@dataclasses.dataclass
class _Codes:
    """A tensor, seen with zeros around it."""

    tensor: int
    pads: tuple[int, ...] = (0, 0, 0, 0)


def _padded(values: Floats, fill: float = 0.0) -> NDArray[np.float32]:
    """An array of whole blocks, in float32."""
    out = np.full(-(-values.size // BLOCK) * BLOCK, fill, np.float32)
    out[: values.size] = np.clip(values, -_LARGEST, _LARGEST)
    return out


def conv_layout(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights (O, Ky, Kx, I) as the kernels read them: blocks, taps, groups, O, I."""
    outputs, height, width, inputs = weights.shape
    blocks, groups = -(-outputs // BLOCK), -(-inputs // GROUP)
    full = np.zeros((blocks * BLOCK, height, width, groups * GROUP), np.int8)
    full[:outputs, :, :, :inputs] = weights
    split = full.reshape(blocks, BLOCK, height, width, groups, GROUP)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1, 5)).reshape(-1)


def depthwise_layout(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights (Ky, Kx, C) with channels in whole blocks."""
    channels = weights.shape[2]
    full = np.zeros((*weights.shape[:2], -(-channels // BLOCK) * BLOCK), np.int8)
    full[:, :, :channels] = weights
    return full.reshape(-1)


class _Lowering:
    """Lowers one region.

    Args:
        reader: `Reader` of the model.
        region: `Region`.
        ranges: From tensors of the model to their smallest and largest value a channel.
        trusted: Boolean. Whether the ranges come from real data.
    """

    def __init__(
        self,
        reader: Reader,
        region: Region,
        ranges: Mapping[int, tuple[Floats, Floats]],
        trusted: bool,
    ) -> None:
        self._reader = reader
        self._region = region
        self._ranges = ranges
        self._trusted = trusted
        self._values: dict[int, _Sum | _Input | _Codes] = {}
        self._uses: dict[int, int] = {}
        for node in region.nodes:
            for tensor in node.inputs:
                self._uses[tensor] = self._uses.get(tensor, 0) + 1
        self.program = Program(
            [],
            [],
            [reader.shape(tensor) for tensor in region.inputs],
            [reader.shape(tensor) for tensor in region.outputs],
            {},
        )

    def run(self) -> Program:
        for number, tensor in enumerate(self._region.inputs):
            channels = self.program.inputs[number][2]
            self._values[tensor] = _Input(number, np.ones(channels), np.zeros(channels))
        for node in self._region.nodes:
            self._values[node.output] = getattr(self, f"_{node.kind}")(node)
        for number, tensor in enumerate(self._region.outputs):
            value = self._values[tensor]
            if not isinstance(value, _Sum) or self._uses.get(tensor, 0):
                value = self._scaled(self._codes(tensor))
            self._emit_output(value, number, self._name(tensor))
        return self.program

    def _name(self, tensor: int) -> str:
        return self._reader.graph.name(tensor).split(";")[0][-80:]

    def _alone(self, tensor: int) -> bool:
        """Whether only one node wants a value, so that it need not be kept."""
        return self._uses.get(tensor, 0) == 1 and tensor not in self._region.outputs

    # Values as codes.

    def _add_tensor(self, tensor: Tensor) -> int:
        self.program.tensors.append(tensor)
        return len(self.program.tensors) - 1

    def _codes(self, tensor: int) -> int:
        """The tensor of codes of a value, made if need be."""
        value = self._values[tensor]
        if isinstance(value, _Codes):
            if any(value.pads):
                raise Unsupported("padding in front of something else than a window")
            return value.tensor
        if isinstance(value, _Input):
            made = self._read(value, tensor)
        else:
            made = self._keep(value, tensor)
        self._values[tensor] = _Codes(made)
        return made

    def _read(self, value: _Input, tensor: int) -> int:
        shape = self.program.inputs[value.number]
        limit = self._wide_limit(tensor)
        out = self._add_tensor(
            Tensor(shape, Type.WIDE, np.ones(shape[2]), 0, limit, slot=value.number)
        )
        arrays = {}
        if np.any(value.scale != 1) or np.any(value.offset != 0):
            arrays["weights"] = _padded(value.scale)
        if np.any(value.offset != 0):
            arrays["multiplier"] = _padded(value.offset)
        self.program.operations.append(
            Operation(
                Code.READ, [value.number], out, arrays=arrays, shift=limit,
                name=self._name(tensor),
            )
        )  # fmt: skip
        return out

    def _wide_limit(self, tensor: int) -> int:
        """The largest magnitude of wide codes whose sums of products fit 32 bits."""
        most, waiting, seen = 1, [tensor], {tensor}
        while waiting:
            at = waiting.pop()
            for node in self._region.nodes:
                if at not in node.inputs:
                    continue
                taps = node.window.height * node.window.width
                if node.kind == "conv":
                    most = max(most, node.arrays["kernel"][0].size)
                elif node.kind in ("depthwise", "average"):
                    most = max(most, taps)
                elif node.kind in _PASSING and node.output not in seen:
                    seen.add(node.output)
                    waiting.append(node.output)
        limit = min(_WIDE, (2**31 - 1) // (_WEIGHT * most))
        if limit < 255:
            raise Unsupported("sums of this many products do not fit 32 bits")
        return limit

    def _bounds(self, value: _Sum) -> tuple[Floats, Floats] | None:
        """What a value cannot exceed, whatever the input; `None` if unknown."""
        low, high = value.bias.copy(), value.bias.copy()
        for tensor, gain in value.addends:
            t = self.program.tensors[tensor]
            if t.low is None or t.high is None:
                return None
            low += np.minimum(t.low * gain, t.high * gain)
            high += np.maximum(t.low * gain, t.high * gain)
        if value.operand is not None and value.node is not None:
            t = self.program.tensors[value.operand]
            if t.low is None or t.high is None:
                return None
            # Zeros around the tensor count as well.
            least, most = np.minimum(t.low, 0), np.maximum(t.high, 0)
            kernel = value.node.arrays.get("kernel", np.ones((1, 1, t.shape[2])))
            axes = (1, 2, 3) if value.node.kind == "conv" else (0, 1)
            downs = np.minimum(kernel * least, kernel * most).sum(axis=axes)
            ups = np.maximum(kernel * least, kernel * most).sum(axis=axes)
            low += np.minimum(downs * value.gain, ups * value.gain)
            high += np.maximum(downs * value.gain, ups * value.gain)
        return np.clip(low, value.low, value.high), np.clip(high, value.low, value.high)

    def _keep(self, value: _Sum, tensor: int, wide: bool = False) -> int:
        """Rounds a value that no quantizer rounds."""
        bounds = self._bounds(value)
        seen = self._ranges.get(tensor)
        height, width, _ = value.shape
        if self._trusted and seen is not None and height * width > 1 and not wide:
            magnitude = np.maximum(np.abs(seen[0]), np.abs(seen[1]))
            top = 2.0 ** (_LINEAR_BITS - 1)
            step = np.maximum(magnitude, 1e-3 * magnitude.max() + 1e-30) / (top - 1)
            mask = np.zeros(value.shape[2], np.bool_)
            out = Tensor(
                value.shape, Type.CODES, step, int(top), int(2 * top - 1),
                packing=Packing(_LINEAR_BITS, 0, True, mask),
            )  # fmt: skip
            limits = (-top, top - 1)
        else:
            limit = self._wide_limit(tensor)
            if bounds is None:
                if seen is None:
                    raise Unsupported("a value whose range is not known")
                margin = 1.0 if self._trusted else _MARGIN
                bounds = (margin * seen[0], margin * seen[1])
            # One step for all channels: int8 weights behind it suffer otherwise.
            reach = max(float(np.max(np.abs(bounds))), 1e-30)
            step = np.full(value.shape[2], reach / limit)
            out = Tensor(value.shape, Type.WIDE, step, 0, limit)
            limits = (-float(limit), float(limit))
        out.low, out.high = limits[0] * step, limits[1] * step
        index = self._add_tensor(out)
        self._emit(value, 1 / step, limits, index, self._name(tensor))
        return index

    def _scaled(self, tensor: int) -> _Sum:
        """A tensor's value, to compute with."""
        shape = self.program.tensors[tensor].shape
        zeros = np.zeros(shape[2])
        return _Sum(
            shape, None, None, Window(), zeros, zeros, [(tensor, np.ones(shape[2]))]
        )

    # Operations.

    def _emit(
        self,
        value: _Sum,
        inverse_step: Floats,
        limits: tuple[Any, Any],
        output: int,
        name: str,
        power: Floats | None = None,
        is_output: bool = False,
    ) -> None:
        low = np.maximum(value.low * inverse_step, limits[0])
        high = np.minimum(value.high * inverse_step, limits[1])
        arrays: dict[str, NDArray] = {
            "bias": _padded(value.bias * inverse_step),
            "low": _padded(low),
            "high": _padded(high),
        }
        if not is_output and self.program.tensors[output].type == Type.CODES:
            arrays["power"] = _padded(np.ones_like(low) if power is None else power, 1)
        code, products, operands = Code.COMBINE, 0, []
        if value.operand is not None and value.node is not None:
            operands = [value.operand]
            step = self.program.tensors[value.operand].step
            if value.node.kind == "average":
                code, gain = Code.AVERAGE, step
            else:
                kernel = value.node.arrays["kernel"] * step
                depthwise = value.node.kind == "depthwise"
                code = Code.DEPTHWISE if depthwise else Code.CONV
                axes = (0, 1) if depthwise else (1, 2, 3)
                largest = np.abs(kernel).max(axis=axes)
                gain = np.where(largest > 0, largest, 1.0) / _WEIGHT
                shape = (1, 1, -1) if depthwise else (-1, 1, 1, 1)
                weights = np.rint(kernel / gain.reshape(shape)).astype(np.int8)
                layout = depthwise_layout if depthwise else conv_layout
                arrays["weights"] = layout(weights)
                products = weights.size * value.shape[0] * value.shape[1]
            arrays["multiplier"] = _padded(gain * value.gain * inverse_step)
        addends = [
            (t, _padded(self.program.tensors[t].step * gain * inverse_step))
            for t, gain in value.addends
        ]
        self.program.operations.append(
            Operation(
                code, operands, output, value.window, [], addends, arrays, 0, name,
                is_output, products,
            )
        )  # fmt: skip

    def _emit_output(self, value: _Sum, number: int, name: str) -> None:
        ones = np.ones(value.shape[2])
        self._emit(value, ones, (-np.inf, np.inf), number, name, is_output=True)

    def _windowed(self, node: Node) -> _Sum:
        source = self._values[node.inputs[0]]
        window = node.window
        pads: tuple[int, ...] = (0, 0, 0, 0)
        if isinstance(source, _Codes):
            operand, pads = source.tensor, source.pads
        else:
            operand = self._codes(node.inputs[0])
        window = dataclasses.replace(
            window, top=window.top + pads[0], left=window.left + pads[2]
        )
        shape = self._reader.shape(node.output)
        bias = node.arrays.get("bias", np.zeros(shape[2]))
        value = _Sum(shape, node, operand, window, np.ones(shape[2]), bias, [])
        value.low, value.high = node.clamp
        return value

    _conv = _depthwise = _average = _windowed

    def _open(self, tensor: int) -> _Sum:
        """A value that may still be scaled and added to."""
        value = self._values[tensor]
        if isinstance(value, _Sum) and self._alone(tensor) and not value.is_clipped:
            return value
        return self._scaled(self._codes(tensor))

    def _add(self, node: Node) -> _Sum:
        first, second = node.inputs
        value = self._open(first)
        if value.operand is None and first != second:
            other = self._open(second)
            if other.operand is not None:
                value, second = other, first
        if len(value.addends) > 1 or (value.operand is not None and value.addends):
            value = self._scaled(self._keep(value, first))
        addend = (self._codes(second), np.ones(value.shape[2]))
        return dataclasses.replace(
            value,
            addends=[*value.addends, addend],
            low=node.clamp[0],
            high=node.clamp[1],
        )

    def _affine(self, node: Node) -> _Sum | _Input:
        (tensor,) = node.inputs
        value = self._values[tensor]
        channels = self._reader.shape(node.output)[2]
        scale = node.arrays.get("scale", np.ones(channels))
        offset = node.arrays.get("offset", np.zeros(channels))
        unclipped = node.clamp == (-np.inf, np.inf)
        if isinstance(value, _Input) and self._alone(tensor) and unclipped:
            return _Input(
                value.number, value.scale * scale, value.offset * scale + offset
            )
        value = self._open(tensor)
        return dataclasses.replace(
            value,
            gain=value.gain * scale,
            bias=value.bias * scale + offset,
            addends=[(t, gain * scale) for t, gain in value.addends],
            low=node.clamp[0],
            high=node.clamp[1],
        )

    def _clamp(self, node: Node) -> _Sum:
        (tensor,) = node.inputs
        value = self._values[tensor]
        if not isinstance(value, _Sum) or not self._alone(tensor):
            value = self._scaled(self._codes(tensor))
        return dataclasses.replace(
            value,
            low=max(value.low, node.clamp[0]),
            high=min(value.high, node.clamp[1]),
        )

    def _quantize(self, node: Node) -> _Codes:
        (tensor,) = node.inputs
        value = self._values[tensor]
        if not isinstance(value, _Sum) or not self._alone(tensor):
            value = self._scaled(self._codes(tensor))
        if node.quantizer is None:
            raise Unsupported("a quantizer without a layer")
        table = node.quantizer.table()
        width = np.where(table.mask, table.bits + table.extra_bits, table.bits)
        q_min = np.where(table.signed, -(2.0 ** (width - 1)), 0.0)
        q_max = 2.0**width - 1 + q_min
        power = np.where(table.mask, 1.0, 2.0**table.extra_bits)
        total = table.bits + table.extra_bits
        step = node.arrays["step"]
        out = Tensor(
            value.shape,
            Type.CODES,
            step / power,
            2 ** (total - 1) if table.signed else 0,
            2**total - 1,
            q_min * step,
            q_max * step,
            Packing(table.bits, table.extra_bits, table.signed, table.mask),
        )
        index = self._add_tensor(out)
        self._emit(
            value, node.arrays["scale"], (q_min, q_max), index, table.name, power
        )
        self.program.quantized[table.name] = index
        return _Codes(index)

    # Operations that only move codes.

    def _move(self, code: Code, node: Node, tensor: Tensor, **fields: Any) -> _Codes:
        index = self._add_tensor(tensor)
        fields.setdefault("operands", [self._codes(node.inputs[0])])
        self.program.operations.append(
            Operation(
                code, output=index, window=node.window, name=self._name(node.output),
                **fields,
            )
        )  # fmt: skip
        return _Codes(index)

    def _same(self, node: Node) -> Tensor:
        source = self.program.tensors[self._codes(node.inputs[0])]
        return dataclasses.replace(source, shape=self._reader.shape(node.output))

    def _maximum(self, node: Node) -> _Codes:
        return self._move(Code.MAXIMUM, node, self._same(node))

    def _nearest(self, node: Node) -> _Codes:
        return self._move(Code.NEAREST, node, self._same(node))

    def _bilinear(self, node: Node) -> _Codes:
        tensor = self._same(node)
        if tensor.type != Type.CODES or tensor.zero:
            raise Unsupported("it interpolates signed codes")
        parts = 4 * node.window.stride[0] * node.window.stride[1]
        shift = 0
        while (tensor.peak * parts + (1 << shift >> 1)) >> shift > _BILINEAR_PEAK:
            shift += 1
        tensor.peak = (tensor.peak * parts + (1 << shift >> 1)) >> shift
        tensor.step = tensor.step * 2.0**shift / parts
        tensor.packing = None
        return self._move(Code.BILINEAR, node, tensor, shift=shift)

    def _pad(self, node: Node) -> _Codes:
        source = self._values[node.inputs[0]]
        pads = source.pads if isinstance(source, _Codes) else (0, 0, 0, 0)
        tensor = (
            source.tensor if isinstance(source, _Codes) else self._codes(node.inputs[0])
        )
        return _Codes(
            tensor, tuple(a + b for a, b in zip(pads, node.widths, strict=True))
        )

    def _widen(self, node: Node) -> _Codes:
        shape = self._reader.shape(node.output)
        source = self.program.tensors[self._codes(node.inputs[0])]
        (front,) = node.widths

        def grown(values: Any, dtype: Any) -> NDArray:
            out = np.zeros(shape[2], dtype)
            out[front : front + source.shape[2]] = values
            return out

        tensor = dataclasses.replace(
            source, shape=shape, step=grown(source.step, np.float64)
        )
        if source.low is not None and source.high is not None:
            tensor.low = grown(source.low, np.float64)
            tensor.high = grown(source.high, np.float64)
        if source.packing is not None:
            mask = grown(source.packing.mask, np.bool_)
            tensor.packing = dataclasses.replace(source.packing, mask=mask)
        return self._move(Code.JOIN, node, tensor, places=[front])

    def _concat(self, node: Node) -> _Codes:
        parts = [self._codes(tensor) for tensor in node.inputs]
        tensors = [self.program.tensors[part] for part in parts]
        kinds = {(t.type, t.zero, t.slot) for t in tensors}
        if len(kinds) > 1:
            parts = [
                part
                if t.type == Type.WIDE and t.slot == NONE
                else self._keep(self._scaled(part), source, wide=True)
                for part, t, source in zip(parts, tensors, node.inputs, strict=True)
            ]
            tensors = [self.program.tensors[part] for part in parts]
        first = tensors[0]
        packings = [t.packing for t in tensors if t.packing is not None]
        alike = {(p.bits, p.extra_bits, p.signed) for p in packings}
        packing = None
        if len(packings) == len(tensors) and len(alike) == 1:
            mask = np.concatenate([p.mask for p in packings])
            packing = dataclasses.replace(packings[0], mask=mask)
        known = all(t.low is not None for t in tensors)
        tensor = Tensor(
            self._reader.shape(node.output),
            first.type,
            np.concatenate([t.step for t in tensors]),
            first.zero,
            max(t.peak for t in tensors),
            np.concatenate([t.low for t in tensors]) if known else None,
            np.concatenate([t.high for t in tensors]) if known else None,
            packing,
            first.slot,
        )
        ends = np.cumsum([t.shape[2] for t in tensors])
        places = [0, *map(int, ends[:-1])]
        return self._move(Code.JOIN, node, tensor, operands=parts, places=places)


def lower(
    reader: Reader,
    region: Region,
    ranges: Mapping[int, tuple[Floats, Floats]],
    trusted: bool,
) -> Program:
    """Lowers a region.

    Args:
        reader: `Reader` of the model.
        region: `Region`.
        ranges: From tensors of the model to their smallest and largest value a channel,
            for what no quantizer rounds.
        trusted: Boolean. Whether the ranges come from real data: then such tensors get
            codes of 7 bits, else of 16.

    Returns:
        A `Program`.

    Raises:
        Unsupported: If the region cannot be computed with integers, and why.
    """
    return _Lowering(reader, region, ranges, trusted).run()
