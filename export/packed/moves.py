"""Operations that only move or select codes, and what their tensors are."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import Unsupported
from dqa_keras.export.packed.gathering import gathered
from dqa_keras.export.packed.node import Node, check_window
from dqa_keras.export.packed.value import Codes, Sum
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
    if (
        isinstance(source, Codes)
        and any(source.pads)
        and node.window.height * node.window.width == 1
    ):
        return _gathered(emitter, node, source)
    return _move(emitter, OpCode.MAX_POOL, node, _like(emitter, node))


def _ignores_zeros(emitter: Emitter, node: Node, source: Codes) -> bool:
    """Whether zeros around a tensor cannot be the only maximum of a window."""
    inner = emitter.program.tensors[source.tensor]
    if inner.type != Type.CODES or inner.zero or min(source.pads) < 0:
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


def gather(emitter: Emitter, node: Node) -> Codes:
    """Some pixels and channels."""
    source = emitter.values[node.inputs[0]]
    if not isinstance(source, Codes):
        source = Codes(emitter.codes(node.inputs[0]))
    return _gathered(emitter, node, source)


def _gathered(emitter: Emitter, node: Node, source: Codes) -> Codes:
    shape, name = emitter.reader.shape(node.output), emitter.name(node.output)
    channels = node.arrays.get("channels")
    return Codes(gathered(emitter.program, source, node.window, shape, name, channels))


def depth_to_space(emitter: Emitter, node: Node) -> Codes:
    """Sets of channels become pixels: their steps must be the same in each set."""
    tensor = node.inputs[0]
    shape, name = emitter.reader.shape(node.output), emitter.name(node.output)
    channels = node.arrays["channels"]
    sets = channels.reshape(-1, shape[2])
    value = emitter.values[tensor]
    if isinstance(value, Sum) and emitter.alone(tensor):
        source = emitter.keep_wide(value, tensor)
    else:
        source = emitter.codes(tensor)
        steps = emitter.program.tensors[source].step[sets]
        if np.any(steps != steps[0]):
            source = emitter.keep_wide(emitter.scaled(source), tensor)
    if not np.array_equal(channels, np.arange(channels.size)):
        size = emitter.reader.shape(tensor)
        source = gathered(
            emitter.program, Codes(source), Window(), size, name, channels
        )
    inner = emitter.program.tensors[source]
    known = inner.low is not None and inner.high is not None
    out = dataclasses.replace(
        inner,
        shape=shape,
        step=inner.step[: shape[2]],
        low=np.min(_sets(inner.low, shape), axis=0) if known else None,
        high=np.max(_sets(inner.high, shape), axis=0) if known else None,
    )
    if inner.packing is not None:
        mask = np.any(_sets(inner.packing.mask, shape), axis=0)
        out.packing = dataclasses.replace(inner.packing, mask=mask, layer="")
    return _move(emitter, OpCode.DEPTH_TO_SPACE, node, out, operands=[source])


def _sets(values: Any, shape: tuple[int, int, int]) -> NDArray:
    return np.asarray(values).reshape(-1, shape[2])


def space_to_depth(emitter: Emitter, node: Node) -> Codes:
    """The pixels of a block become sets of channels, side by side."""
    source = emitter.values[node.inputs[0]]
    if not isinstance(source, Codes):
        source = Codes(emitter.codes(node.inputs[0]))
    shape, name = emitter.reader.shape(node.output), emitter.name(node.output)
    places = np.stack([node.arrays["rows"], node.arrays["columns"]], axis=1)
    parts, order = [], []
    for row, column in np.unique(places, axis=0):
        own = np.flatnonzero((places == (row, column)).all(axis=1))
        window = dataclasses.replace(node.window, top=-int(row), left=-int(column))
        size = (*shape[:2], len(own))
        taken = node.arrays["channels"][own]
        parts.append(gathered(emitter.program, source, window, size, name, taken))
        order.append(own)
    joined = _joined(emitter, node, parts)
    back = np.argsort(np.concatenate(order))
    if np.array_equal(back, np.arange(len(back))):
        return joined
    return Codes(gathered(emitter.program, joined, Window(), shape, name, back))


def pad(emitter: Emitter, node: Node) -> Codes:
    """The same codes, seen with zeros around them, or without some of theirs."""
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
    return _joined(emitter, node, parts)


def _joined(emitter: Emitter, node: Node, parts: list[int]) -> Codes:
    """Tensors of one kind of codes side by side."""
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
    node = dataclasses.replace(node, window=Window())
    return _move(emitter, OpCode.CONCAT, node, tensor, operands=parts, places=places)
