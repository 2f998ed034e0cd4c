"""Reads ops of a converted model as nodes of one vocabulary."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.packed import patterns, rearrangements
from dqa_keras.export.packed.functions import function
from dqa_keras.export.packed.node import Node, check_window, node_of
from dqa_keras.export.plan.ops import Window

_CLAMPS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def read_nodes(reader: ModelReader) -> tuple[list[Node], dict[int, str]]:
    """The nodes of a model, and why other ops (by number) are not among them."""
    nodes: list[Node] = []
    reasons: dict[int, str] = {}
    taken: set[int] = set()
    for index in range(len(reader.graph.ops)):
        if index in taken:
            continue
        try:
            read = _read(reader, index)
            for node in read:
                _check(reader, node)
        except Unsupported as reason:
            reasons[index] = str(reason)
            continue
        taken.update(*(node.ops for node in read))
        nodes += read
    for index in taken:
        reasons.pop(index, None)
    return nodes, reasons


def _check(reader: ModelReader, node: Node) -> None:
    """Refuses a node that a plan cannot hold, whatever it computes."""
    check_window(node.kind, node.window)
    for tensor in [*node.inputs, node.output]:
        reader.shape(tensor)
        if not reader.is_float(tensor):
            raise Unsupported("it computes on something else than float32")


def _read(reader: ModelReader, index: int) -> list[Node]:
    """The nodes of an op: one for each output."""
    gaps = patterns.dilated(reader, index)
    if gaps is not None:
        return gaps
    for pattern in (*patterns.ALL, rearrangements.transposed, function):
        node = pattern(reader, index)
        if node is not None:
            return [node]
    op = reader.graph.ops[index]
    kind = reader.graph.kind(op)
    if kind in _CLAMPS:
        return [node_of(reader, "clamp", index, [op.inputs[0]], clamp=_CLAMPS[kind])]
    if kind not in _READERS:
        raise Unsupported(f"{kind} is not among the ops that a region can hold")
    read = _READERS[kind](reader, index, op)
    return read if isinstance(read, list) else [read]


def _window(
    reader: ModelReader, op: Any, taps: tuple[int, int], dilated: bool
) -> Window:
    options = op.builtinOptions
    stride = (int(options.strideH), int(options.strideW))
    dilation = (
        (int(options.dilationHFactor), int(options.dilationWFactor))
        if dilated
        else (1, 1)
    )
    top = left = 0
    if options.padding == schema.Padding.SAME:
        source, target = reader.shape(op.inputs[0]), reader.shape(op.outputs[0])
        missing = [
            max(0, (target[i] - 1) * stride[i] + (taps[i] - 1) * dilation[i] + 1
                - source[i])
            for i in range(2)
        ]  # fmt: skip
        top, left = missing[0] // 2, missing[1] // 2
    return Window(*taps, stride, dilation, top, left)


def _conv_2d(reader: ModelReader, index: int, op: Any) -> Node:
    kernel = reader.constant(op.inputs[1]).astype(np.float64)
    kind, window = "conv", _window(reader, op, kernel.shape[1:3], True)
    outputs, inputs = kernel.shape[0], reader.shape(op.inputs[0])[2]
    if kernel.shape[3] == 1 and outputs == inputs > 1:  # a group for each channel
        kind, kernel = "depthwise", kernel[..., 0].transpose(1, 2, 0)
    elif kernel.shape[3] != inputs:
        kind = "grouped"
    return node_of(
        reader,
        kind,
        index,
        op.inputs[:1],
        window=window,
        clamp=reader.clamp(op),
        arrays={"kernel": kernel, "bias": reader.bias(op, outputs)},
    )


def _depthwise_conv_2d(reader: ModelReader, index: int, op: Any) -> Node:
    kernel = reader.constant(op.inputs[1])[0].astype(np.float64)
    kind, window = "depthwise", _window(reader, op, kernel.shape[:2], True)
    bias = reader.bias(op, kernel.shape[2])
    if op.builtinOptions.depthMultiplier != 1:  # groups of one channel
        kind, kernel = "grouped", kernel.transpose(2, 0, 1)[..., None]
    return node_of(
        reader,
        kind,
        index,
        op.inputs[:1],
        window=window,
        clamp=reader.clamp(op),
        arrays={"kernel": kernel, "bias": bias},
    )


def _transpose_conv(reader: ModelReader, index: int, op: Any) -> Node:
    kernel = reader.constant(op.inputs[1]).astype(np.float64)
    source, target = reader.shape(op.inputs[2]), reader.shape(op.outputs[0])
    options = op.builtinOptions
    strides = (int(options.strideH), int(options.strideW))
    taps = kernel.shape[1:3]
    pads = [0, 0]
    if options.padding == schema.Padding.SAME:
        for i in range(2):
            full = (source[i] - 1) * strides[i] + taps[i]
            pads[i] = max(0, full - target[i]) // 2
    check_window("transpose", Window(stride=strides))
    if any(-(-target[i] // strides[i]) < source[i] for i in range(2)):
        raise Unsupported("a transposed convolution that drops pixels")
    phases, before = _phases(kernel, strides, pads)
    bias = np.zeros(target[2])
    if len(op.inputs) > 3 and op.inputs[3] >= 0:
        bias = reader.constant(op.inputs[3]).astype(np.float64)
    return node_of(
        reader,
        "transpose",
        index,
        op.inputs[2:3],
        window=Window(phases.shape[1], phases.shape[2], top=before[0], left=before[1]),
        clamp=reader.clamp(op),
        arrays={"kernel": phases, "bias": bias},
        widths=strides,
    )


def _fully_connected(reader: ModelReader, index: int, op: Any) -> Node:
    kernel = reader.constant(op.inputs[1]).astype(np.float64)
    source, target = reader.shape(op.inputs[0]), reader.shape(op.outputs[0])
    if source[2] != kernel.shape[1] or source[:2] != target[:2]:
        raise Unsupported("a dense layer over more than channels")
    return node_of(
        reader,
        "conv",
        index,
        op.inputs[:1],
        clamp=reader.clamp(op),
        arrays={
            "kernel": kernel[:, None, None, :],
            "bias": reader.bias(op, kernel.shape[0]),
        },
    )


def _affine(
    reader: ModelReader, index: int, op: Any, array: str, sign: float = 1.0
) -> Node:
    first, second = (int(tensor) for tensor in op.inputs)
    if reader.graph.is_constant(first):
        if sign < 0:
            raise Unsupported("a constant from which it subtracts")
        first, second = second, first
    channels = reader.shape(op.outputs[0])[2]
    if reader.shape(first) != reader.shape(op.outputs[0]):
        raise Unsupported("it broadcasts")
    values = sign * reader.channels(second, channels)
    return node_of(
        reader, "affine", index, [first], clamp=reader.clamp(op), arrays={array: values}
    )


def _mul(reader: ModelReader, index: int, op: Any) -> Node:
    if any(reader.graph.is_constant(tensor) for tensor in op.inputs):
        return _affine(reader, index, op, "scale")
    output = reader.shape(op.outputs[0])
    # The second may be a number for each channel: a gate.
    first, second = sorted(map(int, op.inputs), key=lambda t: reader.shape(t) != output)
    if reader.shape(first) != output or reader.shape(second) not in (
        output,
        (1, 1, output[2]),
    ):
        raise Unsupported("it broadcasts something else than a number for each channel")
    clamp = reader.clamp(op)
    return node_of(reader, "multiply", index, [first, second], clamp=clamp)


def _sub(reader: ModelReader, index: int, op: Any) -> Node:
    if any(reader.graph.is_constant(tensor) for tensor in op.inputs):
        if reader.graph.is_constant(op.inputs[0]):
            raise Unsupported("a constant from which it subtracts")
        return _affine(reader, index, op, "offset", -1.0)
    return _sum(reader, index, op, "subtract")


def _add(reader: ModelReader, index: int, op: Any) -> Node:
    if any(reader.graph.is_constant(tensor) for tensor in op.inputs):
        return _affine(reader, index, op, "offset")
    return _sum(reader, index, op, "add")


def _sum(reader: ModelReader, index: int, op: Any, kind: str) -> Node:
    if len({reader.shape(tensor) for tensor in [*op.inputs, *op.outputs]}) > 1:
        raise Unsupported("it broadcasts")
    return node_of(reader, kind, index, op.inputs, clamp=reader.clamp(op))


def _reshape(reader: ModelReader, index: int, op: Any) -> Node:
    source, target = reader.shape(op.inputs[0]), reader.shape(op.outputs[0])
    if source[:2] == (1, 1) and target[:2] != (1, 1):
        return rearrangements.image(reader, index, op)
    if source != target:
        raise Unsupported("it moves values between pixels and channels")
    return node_of(reader, "same", index, op.inputs[:1])


def _max_pool_2d(reader: ModelReader, index: int, op: Any) -> Node:
    taps = (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
    window = _window(reader, op, (int(taps[0]), int(taps[1])), False)
    if reader.clamp(op) != (-np.inf, np.inf):
        raise Unsupported("its fused activation is not of the ReLU family")
    return node_of(reader, "max_pool", index, op.inputs, window=window)


def _average_pool_2d(reader: ModelReader, index: int, op: Any) -> Node:
    taps = (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
    window = _window(reader, op, (int(taps[0]), int(taps[1])), False)
    # One tap: it only drops pixels.
    kind = "max_pool" if window.height == window.width == 1 else "average"
    clamp = reader.clamp(op)
    if kind == "max_pool" and clamp != (-np.inf, np.inf):
        raise Unsupported("an activation fused into a selection of pixels")
    return node_of(reader, kind, index, op.inputs, window=window, clamp=clamp)


def _of_all_pixels(reader: ModelReader, index: int, op: Any, kind: str) -> Node:
    height, width, _ = reader.shape(op.inputs[0])
    axes = sorted(
        reader.image_axis(op.inputs[0], int(axis))
        for axis in reader.constant(op.inputs[1]).reshape(-1)
    )
    if axes != [1, 2] and not (height == 1 and axes == [2]):
        raise Unsupported("it reduces something else than all pixels")
    window = Window(height, width)
    return node_of(reader, kind, index, op.inputs[:1], window=window)


def _mean(reader: ModelReader, index: int, op: Any) -> Node:
    return _of_all_pixels(reader, index, op, "average")


def _reduce_max(reader: ModelReader, index: int, op: Any) -> Node:
    return _of_all_pixels(reader, index, op, "max_pool")


def _concatenation(reader: ModelReader, index: int, op: Any) -> Node:
    axis = reader.image_axis(op.outputs[0], int(op.builtinOptions.axis))
    if axis != 3 or any(reader.graph.is_constant(tensor) for tensor in op.inputs):
        raise Unsupported("it joins something else than channels")
    if reader.clamp(op) != (-np.inf, np.inf):
        raise Unsupported("an activation fused into a concatenation")
    if len(op.inputs) > 255:
        raise Unsupported(f"it joins {len(op.inputs)} tensors; a plan at most 255")
    return node_of(reader, "concat", index, op.inputs)


def _pad(reader: ModelReader, index: int, op: Any) -> Node:
    pads = reader.constant(op.inputs[1]).astype(int)
    if pads.shape == (3, 2):
        pads = np.insert(pads, 1, 0, axis=0)
    if pads.shape != (4, 2) or pads[[0, 3]].any():
        raise Unsupported("it pads something else than rows and columns")
    widths = tuple(int(width) for width in pads[1:3].reshape(-1))
    return node_of(reader, "pad", index, op.inputs[:1], widths=widths)


def _resize(reader: ModelReader, index: int, op: Any, kind: str) -> Node:
    source, target = reader.shape(op.inputs[0]), reader.shape(op.outputs[0])
    factors = (target[0] // source[0], target[1] // source[1])
    options = op.builtinOptions
    if (factors[0] * source[0], factors[1] * source[1]) != target[:2]:
        raise Unsupported("an image that does not grow by whole factors")
    if options.alignCorners or (kind == "bilinear" and not options.halfPixelCenters):
        raise Unsupported("an image that grows without half-pixel centers")
    if max(factors) > 8:
        raise Unsupported("an image that grows by more than 8")
    window = Window(1, 1, factors)
    return node_of(reader, kind, index, op.inputs[:1], window=window)


def _hard_swish(reader: ModelReader, index: int, op: Any) -> Node:
    return node_of(reader, "hard_swish", index, op.inputs)


def _prelu(reader: ModelReader, index: int, op: Any) -> Node:
    slopes = reader.channels(op.inputs[1], reader.shape(op.outputs[0])[2])
    return node_of(reader, "prelu", index, op.inputs[:1], arrays={"slopes": slopes})


def _resize_nearest_neighbor(reader: ModelReader, index: int, op: Any) -> Node:
    return _resize(reader, index, op, "nearest")


def _resize_bilinear(reader: ModelReader, index: int, op: Any) -> Node:
    return _resize(reader, index, op, "bilinear")


def _phases(
    kernel: NDArray, strides: tuple[int, int], pads: list[int]
) -> tuple[NDArray, list[int]]:
    """A transposed convolution as an ordinary one with a set of outputs per phase.

    Output pixel `s i + p` sums `kernel[k]` times input pixel `i + (p + pad - k) / s`
    over the k for which that is whole: one small kernel for each p.

    Returns:
        Kernels (phases O, taps, taps, I), phases by rows, and the taps in front of i.
    """
    sizes, before = [], []
    for axis in range(2):
        low = -((kernel.shape[1 + axis] - 1 - pads[axis]) // strides[axis])
        high = (strides[axis] - 1 + pads[axis]) // strides[axis]
        before.append(max(0, -low))
        sizes.append(high + before[-1] + 1)
    outputs, height, width, inputs = kernel.shape
    phases = np.zeros((*strides, outputs, *sizes, inputs))
    for ky in range(height):
        for kx in range(width):
            py, dy = (ky - pads[0]) % strides[0], -((ky - pads[0]) // strides[0])
            px, dx = (kx - pads[1]) % strides[1], -((kx - pads[1]) // strides[1])
            phases[py, px, :, before[0] + dy, before[1] + dx] = kernel[:, ky, kx]
    return phases.reshape(-1, *sizes, inputs), before


_READERS: dict[str, Callable[[ModelReader, int, Any], Node | list[Node]]] = {
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "MUL": _mul,
    "SUB": _sub,
    "ADD": _add,
    "MAX_POOL_2D": _max_pool_2d,
    "AVERAGE_POOL_2D": _average_pool_2d,
    "MEAN": _mean,
    "REDUCE_MAX": _reduce_max,
    "CONCATENATION": _concatenation,
    "PAD": _pad,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest_neighbor,
    "RESIZE_BILINEAR": _resize_bilinear,
    "HARD_SWISH": _hard_swish,
    "RESHAPE": _reshape,
    "EXPAND_DIMS": _reshape,
    "SQUEEZE": _reshape,
    "PRELU": _prelu,
    "SLICE": rearrangements.slice_,
    "STRIDED_SLICE": rearrangements.strided_slice,
    "SPLIT": rearrangements.split,
    "SPLIT_V": rearrangements.split_v,
    "DEPTH_TO_SPACE": rearrangements.depth_to_space,
    "SPACE_TO_DEPTH": rearrangements.space_to_depth,
}
