"""Turns a region's nodes into integer operations with quantized weights.

A chain such as convolution, sum, ReLU, quantizer becomes one operation: the integer sum
is scaled, added to, clipped and rounded in one go, so nothing in between needs memory.
What no quantizer rounds but must be kept, a linear bottleneck for instance, gets codes
of its own.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.analysis.storage import mean_code_bits
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.codec.symbols import code_limits
from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.packed import wide_functions
from dqa_keras.export.packed.io_types import ByteInput
from dqa_keras.export.packed.node import Node, UnsupportedNode, check_window
from dqa_keras.export.packed.partition import Region
from dqa_keras.export.packed.value import Codes, Input, Sum
from dqa_keras.export.packed.values import Emitter
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import (
    ByteCodes,
    Floats,
    Operation,
    Packing,
    Program,
    Tensor,
)
from dqa_keras.export.plan.records import NONE, Type
from dqa_keras.layers import Quantizer

# Interpolated codes are rounded to this many levels: with more, sums of products would
# have to leave 16 bits after every step.
_BILINEAR_PEAK = 127

# The mean or maximum of so many pixels is computed from all at once.
_FEW_PIXELS = 64


def _packing(layer: Quantizer, table: LayerTable) -> Packing:
    """How a quantizer prescribes that its codes are stored."""
    return Packing(
        table.bits,
        table.extra_bits,
        table.signed,
        table.mask,
        # A plan has a byte for the length of a name.
        table.name if len(table.name.encode()) < 256 else "",
        mean_code_bits(layer),
        layer.config.quantize_linear and table.signed,
    )


def _outside(emitter: Emitter, tensor: int) -> Sum:
    """A value as numbers that leave the region."""
    value = emitter.values[tensor]
    if (
        isinstance(value, Sum)
        and not value.is_transposed
        and not emitter.uses.get(tensor, 0)
    ):
        return value
    return emitter.scaled(emitter.codes(tensor))


def _average(emitter: Emitter, node: Node) -> Sum:
    """A mean of many pixels is that of rows' means: so no row waits for the others."""
    shape = emitter.reader.shape(node.inputs[0])
    window = (node.window.height, node.window.width)
    if window != shape[:2] or shape[0] * shape[1] <= _FEW_PIXELS:
        return _windowed(emitter, node)
    operand = emitter.codes(node.inputs[0])
    ones, zeros = np.ones(shape[2]), np.zeros(shape[2])
    across = dataclasses.replace(node, window=Window(1, shape[1]))
    size = (shape[0], 1, shape[2])
    rows = Sum(size, across, operand, across.window, ones, zeros, [])
    kept = emitter.keep_wide(rows, node.inputs[0])
    down = dataclasses.replace(node, window=Window(shape[0], 1))
    size = (1, 1, shape[2])
    return Sum(size, down, kept, down.window, ones, zeros, [], *node.clamp)


def _windowed(emitter: Emitter, node: Node) -> Sum:
    source = emitter.values[node.inputs[0]]
    window = node.window
    pads: tuple[int, ...] = (0, 0, 0, 0)
    # An average counts zeros that are padded, but not those of its own window.
    if isinstance(source, Codes) and node.kind != "average":
        operand, pads = source.tensor, source.pads
    else:
        operand = emitter.codes(node.inputs[0])
    window = dataclasses.replace(
        window, top=window.top + pads[0], left=window.left + pads[2]
    )
    check_window(node.kind, window)
    shape = emitter.reader.shape(node.output)
    bias = node.arrays.get("bias", np.zeros(shape[2]))
    value = Sum(shape, node, operand, window, np.ones(shape[2]), bias, [])
    value.low, value.high = node.clamp
    return value


def _open(emitter: Emitter, tensor: int) -> Sum:
    """A value that may still be scaled and added to."""
    value = emitter.values[tensor]
    if isinstance(value, Sum) and emitter.alone(tensor) and not value.is_clipped:
        return value
    return emitter.scaled(emitter.codes(tensor))


def _addable(emitter: Emitter, tensor: int) -> Sum:
    """A value that may still be added to."""
    value = _open(emitter, tensor)
    return emitter.scaled(emitter.codes(tensor)) if value.is_transposed else value


def _multiply(emitter: Emitter, node: Node) -> Sum:
    first, second = (emitter.fixed_codes(tensor) for tensor in node.inputs)
    shape = emitter.reader.shape(node.output)
    ones = np.ones(shape[2])
    return Sum(
        shape, node, first, Window(), ones, 0 * ones, [], *node.clamp, factor=second
    )


def _same(emitter: Emitter, node: Node) -> Sum | Input | Codes:
    (tensor,) = node.inputs
    value = emitter.values[tensor]
    return value if emitter.alone(tensor) else Codes(emitter.codes(tensor))


def _add(emitter: Emitter, node: Node) -> Sum:
    first, second = node.inputs
    value = _addable(emitter, first)
    if value.operand is None and first != second:
        other = _addable(emitter, second)
        if other.operand is not None:
            value, second = other, first
    if len(value.addends) > 1 or (value.operand is not None and value.addends):
        value = emitter.scaled(emitter.keep(value, first))
    addend = (emitter.codes(second), np.ones(value.shape[2]))
    return dataclasses.replace(
        value,
        addends=[*value.addends, addend],
        low=node.clamp[0],
        high=node.clamp[1],
    )


def _subtract(emitter: Emitter, node: Node) -> Sum:
    first, second = node.inputs
    value = _addable(emitter, first)
    if len(value.addends) > 1 or (value.operand is not None and value.addends):
        value = emitter.scaled(emitter.keep(value, first))
    addend = (emitter.codes(second), -np.ones(value.shape[2]))
    return dataclasses.replace(
        value,
        addends=[*value.addends, addend],
        low=node.clamp[0],
        high=node.clamp[1],
    )


def _affine(emitter: Emitter, node: Node) -> Sum | Input:
    (tensor,) = node.inputs
    value = emitter.values[tensor]
    channels = emitter.reader.shape(node.output)[2]
    scale = node.arrays.get("scale", np.ones(channels))
    offset = node.arrays.get("offset", np.zeros(channels))
    unclipped = node.clamp == (-np.inf, np.inf)
    if isinstance(value, Input) and emitter.alone(tensor) and unclipped:
        return Input(value.number, value.scale * scale, value.offset * scale + offset)
    value = _open(emitter, tensor)
    return dataclasses.replace(
        value,
        gain=value.gain * scale,
        bias=value.bias * scale + offset,
        addends=[(t, gain * scale) for t, gain in value.addends],
        low=node.clamp[0],
        high=node.clamp[1],
    )


def _clamp(emitter: Emitter, node: Node) -> Sum:
    (tensor,) = node.inputs
    value = emitter.values[tensor]
    if not isinstance(value, Sum) or not emitter.alone(tensor):
        value = emitter.scaled(emitter.codes(tensor))
    return dataclasses.replace(
        value,
        low=max(value.low, node.clamp[0]),
        high=min(value.high, node.clamp[1]),
    )


def _quantize(emitter: Emitter, node: Node) -> Codes:
    (tensor,) = node.inputs
    value = emitter.values[tensor]
    if not isinstance(value, Sum) or not emitter.alone(tensor):
        value = emitter.scaled(emitter.codes(tensor))
    if node.quantizer is None:
        raise Unsupported("a quantizer without a layer")
    table = node.quantizer.table()
    q_min, q_max = (x.astype(np.float64) for x in code_limits(table))
    power = np.where(table.mask, 1.0, 2.0**table.extra_bits)
    total = table.bits + table.extra_bits
    step = node.arrays["step"]
    out = Tensor(
        value.shape,
        Type.CODES,
        step / power,
        -quantizers.code_limits(total, table.signed)[0],
        2**total - 1,
        q_min * step,
        q_max * step,
        _packing(node.quantizer, table),
    )
    index = emitter.add_tensor(out)
    emitter.emit(value, node.arrays["scale"], (q_min, q_max), index, table.name, power)
    emitter.program.quantized[table.name] = index
    return Codes(index)


# Operations that only move codes.


def _move(
    emitter: Emitter, code: OpCode, node: Node, tensor: Tensor, **fields: Any
) -> Codes:
    index = emitter.add_tensor(tensor)
    fields.setdefault("operands", [emitter.codes(node.inputs[0])])
    emitter.program.operations.append(
        Operation(
            code, output=index, window=node.window, name=emitter.name(node.output),
            **fields,
        )
    )  # fmt: skip
    return Codes(index)


def _like(emitter: Emitter, node: Node) -> Tensor:
    source = emitter.program.tensors[emitter.codes(node.inputs[0])]
    return dataclasses.replace(source, shape=emitter.reader.shape(node.output))


def _max_pool(emitter: Emitter, node: Node) -> Codes:
    source = emitter.values[node.inputs[0]]
    height, width, channels = emitter.reader.shape(node.inputs[0])
    whole = (node.window.height, node.window.width) == (height, width)
    if whole and height * width > _FEW_PIXELS:
        row = dataclasses.replace(node, window=Window(1, width))
        out = dataclasses.replace(_like(emitter, node), shape=(height, 1, channels))
        rows = _move(emitter, OpCode.MAX_POOL, row, out)
        node = dataclasses.replace(node, window=Window(height, 1))
        out = dataclasses.replace(out, shape=(1, 1, channels))
        return _move(emitter, OpCode.MAX_POOL, node, out, operands=[rows.tensor])
    if isinstance(source, Codes) and _ignores_zeros(emitter, node, source):
        top, _, left, _ = source.pads
        w = node.window
        window = dataclasses.replace(w, top=w.top + top, left=w.left + left)
        check_window(node.kind, window)
        node = dataclasses.replace(node, window=window)
        inner = emitter.program.tensors[source.tensor]
        out = dataclasses.replace(inner, shape=emitter.reader.shape(node.output))
        return _move(emitter, OpCode.MAX_POOL, node, out, operands=[source.tensor])
    return _move(emitter, OpCode.MAX_POOL, node, _like(emitter, node))


def _ignores_zeros(emitter: Emitter, node: Node, source: Codes) -> bool:
    """Whether zeros around a tensor cannot be the only maximum of a window."""
    inner = emitter.program.tensors[source.tensor]
    if inner.type != Type.CODES or inner.zero:
        return False
    w, out = node.window, emitter.reader.shape(node.output)
    starts = (w.top + source.pads[0], w.left + source.pads[2])
    taps = (w.height, w.width)
    return all(
        starts[i] < taps[i] and (out[i] - 1) * w.stride[i] - starts[i] < inner.shape[i]
        for i in range(2)
    )


def _nearest(emitter: Emitter, node: Node) -> Codes:
    return _move(emitter, OpCode.NEAREST, node, _like(emitter, node))


def _bilinear(emitter: Emitter, node: Node) -> Codes:
    tensor = _like(emitter, node)
    if tensor.type != Type.CODES or tensor.zero:
        raise Unsupported("it interpolates signed codes")
    parts = 4 * node.window.stride[0] * node.window.stride[1]
    shift = 0
    while (tensor.peak * parts + (1 << shift >> 1)) >> shift > _BILINEAR_PEAK:
        shift += 1
    tensor.peak = (tensor.peak * parts + (1 << shift >> 1)) >> shift
    tensor.step = tensor.step * 2.0**shift / parts
    tensor.packing = None
    return _move(emitter, OpCode.BILINEAR, node, tensor, shift=shift)


def _pad(emitter: Emitter, node: Node) -> Codes:
    source = emitter.values[node.inputs[0]]
    pads = source.pads if isinstance(source, Codes) else (0, 0, 0, 0)
    tensor = (
        source.tensor if isinstance(source, Codes) else emitter.codes(node.inputs[0])
    )
    return Codes(tensor, tuple(a + b for a, b in zip(pads, node.widths, strict=True)))


def _widen(emitter: Emitter, node: Node) -> Codes:
    shape = emitter.reader.shape(node.output)
    source = emitter.program.tensors[emitter.codes(node.inputs[0])]
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
        tensor.packing = dataclasses.replace(source.packing, mask=mask, layer="")
    return _move(emitter, OpCode.CONCAT, node, tensor, places=[front])


def _concat(emitter: Emitter, node: Node) -> Codes:
    parts = [emitter.codes(tensor) for tensor in node.inputs]
    tensors = [emitter.program.tensors[part] for part in parts]
    kinds = {(t.type, t.zero, t.slot) for t in tensors}
    if len(kinds) > 1:
        parts = [
            part
            if t.type == Type.WIDE and t.slot == NONE
            else emitter.keep_wide(emitter.scaled(part), source)
            for part, t, source in zip(parts, tensors, node.inputs, strict=True)
        ]
        tensors = [emitter.program.tensors[part] for part in parts]
    first = tensors[0]
    packings = [t.packing for t in tensors if t.packing is not None]
    alike = {(p.bits, p.extra_bits, p.signed) for p in packings}
    packing = None
    if len(packings) == len(tensors) and len(alike) == 1:
        mask = np.concatenate([p.mask for p in packings])
        packing = dataclasses.replace(packings[0], mask=mask, layer="")
    known = all(t.low is not None for t in tensors)
    tensor = Tensor(
        emitter.reader.shape(node.output),
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
    return _move(emitter, OpCode.CONCAT, node, tensor, operands=parts, places=places)


# Lowered node by node: what each kind becomes.
_LOWERINGS: dict[str, Callable[[Emitter, Node], Sum | Input | Codes]] = {
    "conv": _windowed,
    "depthwise": _windowed,
    "transpose": _windowed,
    "average": _average,
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "same": _same,
    "affine": _affine,
    "clamp": _clamp,
    "hard_swish": wide_functions.hard_swish,
    "function": wide_functions.function,
    "prelu": wide_functions.prelu,
    "quantize": _quantize,
    "max_pool": _max_pool,
    "nearest": _nearest,
    "bilinear": _bilinear,
    "pad": _pad,
    "widen": _widen,
    "concat": _concat,
}


def lower(
    reader: ModelReader,
    region: Region,
    ranges: Mapping[int, tuple[Floats, Floats]],
    trusted: bool,
    byte_inputs: Mapping[int, ByteInput],
    byte_outputs: Mapping[int, ByteCodes],
) -> Program:
    """Lowers a region.

    Args:
        reader: `ModelReader` of the model.
        region: `Region`.
        ranges: From tensors of the model to their smallest and largest value a channel,
            for what no quantizer rounds.
        trusted: Boolean. Whether the ranges come from real data: then such tensors get
            codes of 7 bits, else of 16.
        byte_inputs: From tensors of the model that come as bytes to what they mean, a
            number for each channel.
        byte_outputs: From tensors of the model that leave it as bytes to their
            `ByteCodes`.

    Returns:
        A `Program`.

    Raises:
        Unsupported: If the region cannot be computed with integers, and why.
    """
    emitter = Emitter(reader, region, ranges, trusted)
    program = emitter.program
    program.byte_outputs = {
        number: byte_outputs[tensor]
        for number, tensor in enumerate(region.outputs)
        if tensor in byte_outputs
    }
    for number, tensor in enumerate(region.inputs):
        channels = program.inputs[number][2]
        value = Input(number, np.ones(channels), np.zeros(channels))
        if tensor in byte_inputs:
            program.bytes.add(number)
            of = byte_inputs[tensor]
            value = Input(number, 1 / of.std, -of.mean / of.std)
        emitter.values[tensor] = value
    for node in region.nodes:
        try:
            emitter.values[node.output] = _LOWERINGS[node.kind](emitter, node)
        except Unsupported as reason:
            raise UnsupportedNode(str(reason), node) from reason
    for number, tensor in enumerate(region.outputs):
        try:
            emitter.emit_output(_outside(emitter, tensor), number, emitter.name(tensor))
        except Unsupported as reason:
            maker = next(n for n in region.nodes if n.output == tensor)
            raise UnsupportedNode(str(reason), maker) from reason
    return program
