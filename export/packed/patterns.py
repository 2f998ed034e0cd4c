"""Several ops that make one operation: a quantizer, an enlarged image."""

from typing import Any

import numpy as np

from dqa_keras.export.litert import verification
from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.packed.node import Node, node_of
from dqa_keras.export.plan.ops import Window


def nearest(reader: ModelReader, index: int) -> Node | None:
    """Keras' UpSampling2D: each pixel is repeated by reshaping and tiling."""
    chain = reader.chain(index, ["RESHAPE", "TILE", "RESHAPE", "TILE", "RESHAPE"])
    if chain is None:
        return None
    source, target = reader.between(chain)
    if not source or source[2] != target[2]:
        return None
    tiles = [reader.constant(reader.graph.ops[chain[i]].inputs[1]) for i in (1, 3)]
    factors = (int(tiles[0].prod()), int(tiles[1].prod()))
    if (source[0] * factors[0], source[1] * factors[1]) != target[:2]:
        return None
    return node_of(
        reader,
        "nearest",
        index,
        reader.graph.ops[index].inputs[:1],
        ops=chain,
        output=int(reader.graph.ops[chain[-1]].outputs[0]),
        window=Window(1, 1, factors),
    )


def widen(reader: ModelReader, index: int) -> Node | None:
    """Channels of zeros on both sides, made by padding where they are columns."""
    chain = reader.chain(index, ["RESHAPE", "PAD", "RESHAPE"])
    if chain is None:
        return None
    source, target = reader.between(chain)
    pads = reader.constant(reader.graph.ops[chain[1]].inputs[1]).astype(int)
    if not source or source[:2] != target[:2] or pads.shape != (4, 2):
        return None
    if pads[[0, 1, 3]].any() or source[2] + pads[2].sum() != target[2]:
        return None
    return node_of(
        reader,
        "widen",
        index,
        reader.graph.ops[index].inputs[:1],
        ops=chain,
        output=int(reader.graph.ops[chain[-1]].outputs[0]),
        widths=(int(pads[2][0]),),
    )


def flat(reader: ModelReader, index: int) -> Node | None:
    """A dense layer over all pixels: a convolution whose window is the image."""
    chain = reader.chain(index, ["RESHAPE", "FULLY_CONNECTED"])
    if chain is None:
        return None
    first, last = (reader.graph.ops[at] for at in chain)
    try:
        height, width, channels = reader.shape(first.inputs[0])
    except Unsupported:
        return None
    kernel = reader.constant(last.inputs[1]).astype(np.float64)
    if kernel.shape[1] != height * width * channels or height > 255:
        return None
    return node_of(
        reader,
        "conv",
        index,
        first.inputs[:1],
        ops=chain,
        output=int(last.outputs[0]),
        window=Window(height, width),
        clamp=reader.clamp(last),
        arrays={
            "kernel": kernel.reshape(-1, height, width, channels),
            "bias": reader.bias(last, kernel.shape[0]),
        },
    )


def quantize(reader: ModelReader, index: int) -> Node | None:
    """A quantizer: scaling, bounds, rounding and scaling back."""
    chain = [index]
    while True:
        op = reader.graph.ops[chain[-1]]
        kind = reader.graph.kind(op)
        if kind == "ROUND":
            break
        constant = [reader.graph.is_constant(tensor) for tensor in op.inputs]
        following = reader.consumers.get(int(op.outputs[0]), [])
        if (
            kind not in ("MUL", "MAXIMUM", "MINIMUM", "RELU")
            or (kind == "MUL" and len(chain) > 1)
            or (kind != "RELU" and sum(constant) != 1)
            or len(following) != 1
            or int(op.outputs[0]) in reader.outputs
        ):
            return None
        chain.append(following[0])
    number = verification.quantizer_number(reader.graph.name(op.outputs[0]))
    if number is None:
        return None
    layer = reader.layers[number]
    channels = reader.shape(op.outputs[0])[2]
    first = reader.graph.ops[index]
    scaled = reader.graph.kind(first) == "MUL"
    source = reader.graph.variable_input(first)
    before = (
        reader.channels(_other(first, source), channels)
        if scaled
        else np.ones(channels)
    )
    behind = reader.only_consumer(int(op.outputs[0]), "MUL")
    after = np.ones(channels)
    if behind is not None:
        last = reader.graph.ops[behind]
        other = _other(last, int(op.outputs[0]))
        if reader.graph.is_constant(other):
            after = reader.channels(other, channels)
            if reader.clamp(last) != (-np.inf, np.inf):
                raise Unsupported("an activation fused into a quantizer")
            chain.append(behind)
    return node_of(
        reader,
        "quantize",
        index,
        [source],
        ops=chain,
        output=int(reader.graph.ops[chain[-1]].outputs[0]),
        arrays={"scale": before, "step": after},
        quantizer=layer,
    )


def dilated(reader: ModelReader, index: int) -> list[Node] | None:
    """The convolutions behind a SPACE_TO_BATCH_ND; None if the op is none.

    It puts every so many pixels into an image of their own, and BATCH_TO_SPACE_ND puts
    them back: the convolution between has gaps. The first may serve several.

    Raises:
        Unsupported: If something else than such convolutions lies behind it.
    """
    op = reader.graph.ops[index]
    if reader.graph.kind(op) != "SPACE_TO_BATCH_ND":
        return None
    chains = _dilations(reader, [index])
    block, before = (reader.constant(tensor).astype(int) for tensor in op.inputs[1:3])
    # Blocks of a tensor of three axes are of columns only.
    block = np.concatenate([np.ones(2 - len(block), int), block])
    before = np.concatenate([np.zeros((2 - len(before), 2), int), before])
    nodes = []
    for chain in chains:
        conv = reader.graph.ops[chain[-3] if _reshapes(reader, chain) else chain[-2]]
        last = reader.graph.ops[chain[-1]]
        kernel = reader.constant(conv.inputs[1]).astype(np.float64)
        options = conv.builtinOptions
        factors = (options.dilationHFactor, options.dilationWFactor)
        strides = (options.strideH, options.strideW)
        after = reader.constant(last.inputs[2]).astype(int)
        if max(*factors, *strides) > 1 or after[:, 0].any() or options.padding == 0:
            raise Unsupported("pixels in batches that are not a dilated convolution's")
        if kernel.shape[3] != reader.shape(op.inputs[0])[2]:
            raise Unsupported("a grouped convolution")
        window = Window(
            kernel.shape[1], kernel.shape[2], (1, 1), (int(block[0]), int(block[1])),
            int(before[0, 0]), int(before[1, 0]),
        )  # fmt: skip
        bias = reader.bias(conv, kernel.shape[0])
        nodes.append(
            node_of(
                reader,
                "conv",
                index,
                op.inputs[:1],
                ops=chain,
                output=int(last.outputs[0]),
                window=window,
                clamp=reader.clamp(conv),
                arrays={"kernel": kernel, "bias": bias},
            )
        )
    return nodes


_DILATED = {
    "SPACE_TO_BATCH_ND": ("RESHAPE", "EXPAND_DIMS", "CONV_2D"),
    "RESHAPE": ("CONV_2D", "BATCH_TO_SPACE_ND"),
    "EXPAND_DIMS": ("CONV_2D",),
    "CONV_2D": ("RESHAPE", "SQUEEZE", "BATCH_TO_SPACE_ND"),
    "SQUEEZE": ("BATCH_TO_SPACE_ND",),
}


def _dilations(reader: ModelReader, chain: list[int]) -> list[list[int]]:
    """All ways from an op to a BATCH_TO_SPACE_ND; nothing else may lie behind it."""
    op = reader.graph.ops[chain[-1]]
    kind = reader.graph.kind(op)
    if kind == "BATCH_TO_SPACE_ND":
        return [chain]
    tensor = int(op.outputs[0])
    behind = reader.consumers.get(tensor, [])
    kinds = {reader.graph.kind(reader.graph.ops[at]) for at in behind}
    if not behind or tensor in reader.outputs or not kinds <= {*_DILATED[kind]}:
        raise Unsupported("pixels in batches that are not a dilated convolution's")
    return [way for at in behind for way in _dilations(reader, [*chain, at])]


def _reshapes(reader: ModelReader, chain: list[int]) -> bool:
    return reader.graph.kind(reader.graph.ops[chain[-2]]) != "CONV_2D"


def _other(op: Any, tensor: int) -> int:
    first, second = (int(index) for index in op.inputs)
    return second if first == tensor else first


ALL = (quantize, nearest, widen, flat)
