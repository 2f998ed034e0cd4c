"""Turns a region's nodes into integer operations with quantized weights.

A chain such as convolution, sum, ReLU, quantizer becomes one operation: the integer sum
is scaled, added to, clipped and rounded in one go, so nothing in between needs memory.
What no quantizer rounds but must be kept, a linear bottleneck for instance, gets codes
of its own.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from dqa_keras import quantizers
from dqa_keras.analysis.storage import mean_code_bits
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.codec.symbols import code_limits
from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.packed import moves, wide_functions
from dqa_keras.export.packed.io_types import ByteInput
from dqa_keras.export.packed.node import Node, UnsupportedNode, check_window
from dqa_keras.export.packed.partition import Region
from dqa_keras.export.packed.value import Codes, Input, Sum
from dqa_keras.export.packed.values import Emitter
from dqa_keras.export.plan.ops import Window
from dqa_keras.export.plan.program import (
    ByteCodes,
    Floats,
    Packing,
    Program,
    Tensor,
)
from dqa_keras.export.plan.records import Type
from dqa_keras.layers import Quantizer


def _packing(layer: Quantizer, table: LayerTable) -> Packing:
    """How a quantizer prescribes that its codes are stored."""
    return Packing(
        table.bits,
        table.extra_bits,
        table.sign,
        table.mask,
        # A plan has a byte for the length of a name.
        table.name if len(table.name.encode()) < 256 else "",
        mean_code_bits(layer),
        layer.config.quantize_linear and bool(table.signed),
    )


def _outside(emitter: Emitter, tensor: int) -> Sum:
    """A value as numbers that leave the region."""
    value = emitter.values[tensor]
    if (
        isinstance(value, Sum)
        and not value.comes_in_parts
        and not emitter.uses.get(tensor, 0)
    ):
        return value
    return emitter.scaled(emitter.codes(tensor))


def _average(emitter: Emitter, node: Node) -> Sum:
    """A mean of many pixels is that of rows' means: so no row waits for the others."""
    if not moves.reduces_many_pixels(emitter, node):
        return _windowed(emitter, node)
    shape = emitter.reader.shape(node.inputs[0])
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
    if isinstance(source, Codes) and node.kind != "average" and min(source.pads) >= 0:
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
    return emitter.scaled(emitter.codes(tensor)) if value.comes_in_parts else value


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


# Lowered node by node: what each kind becomes.
_LOWERINGS: dict[str, Callable[[Emitter, Node], Sum | Input | Codes]] = {
    "conv": _windowed,
    "depthwise": _windowed,
    "transpose": _windowed,
    "grouped": _windowed,
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
    "max_pool": moves.max_pool,
    "nearest": moves.nearest,
    "bilinear": moves.bilinear,
    "pad": moves.pad,
    "widen": moves.widen,
    "concat": moves.concat,
    "gather": moves.gather,
    "depth_to_space": moves.depth_to_space,
    "space_to_depth": moves.space_to_depth,
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
