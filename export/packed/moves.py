"""Operations that only move or select codes, and what their tensors are."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import Unsupported
from dqa_keras.export.packed.node import Node, check_window
from dqa_keras.export.packed.value import Codes
from dqa_keras.export.packed.values import Emitter
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import Operation, Tensor
from dqa_keras.export.plan.records import NONE, Type

# Interpolated codes are rounded to this many levels: with more, sums of products would
# have to leave 16 bits after every step.
_BILINEAR_PEAK = 127

# The mean or maximum of so many pixels is computed from all at once.
_FEW_PIXELS = 64


def reduces_many_pixels(emitter: Emitter, node: Node) -> bool:
    """Whether a window covers all pixels, and those are many."""
    height, width, channels = emitter.reader.shape(node.inputs[0])
    return (
        emitter.reader.shape(node.output) == (1, 1, channels)
        and (node.window.height, node.window.width) == (height, width)
        and height * width > _FEW_PIXELS
    )


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


def max_pool(emitter: Emitter, node: Node) -> Codes:
    """The largest codes of windows."""
    source = emitter.values[node.inputs[0]]
    if reduces_many_pixels(emitter, node):
        height, width, channels = emitter.reader.shape(node.inputs[0])
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


def nearest(emitter: Emitter, node: Node) -> Codes:
    """Pixels repeated."""
    return _move(emitter, OpCode.NEAREST, node, _like(emitter, node))


def bilinear(emitter: Emitter, node: Node) -> Codes:
    """Codes between neighbours."""
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


def pad(emitter: Emitter, node: Node) -> Codes:
    """The same codes, seen with zeros around them."""
    source = emitter.values[node.inputs[0]]
    pads = source.pads if isinstance(source, Codes) else (0, 0, 0, 0)
    tensor = (
        source.tensor if isinstance(source, Codes) else emitter.codes(node.inputs[0])
    )
    return Codes(tensor, tuple(a + b for a, b in zip(pads, node.widths, strict=True)))


def widen(emitter: Emitter, node: Node) -> Codes:
    """Channels of zeros on both sides."""
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


def concat(emitter: Emitter, node: Node) -> Codes:
    """Channels side by side."""
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
