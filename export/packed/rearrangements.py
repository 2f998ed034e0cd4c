"""Ops that take some pixels and channels, or move values between the two."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.packed.node import Node, node_of
from dqa_keras.export.plan.ops import Window


def slice_(reader: ModelReader, index: int, op: Any) -> Node:
    """SLICE: a box of pixels and channels."""
    begin = reader.constant(op.inputs[1]).reshape(-1).astype(int)
    return _box(reader, index, op, begin, np.ones_like(begin))


def strided_slice(reader: ModelReader, index: int, op: Any) -> Node:
    """STRIDED_SLICE: a box, or every so many pixels and channels of it."""
    options = op.builtinOptions
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
        raise Unsupported("a slice that adds or drops an axis")
    begin, _, steps = (
        reader.constant(tensor).reshape(-1).astype(int) for tensor in op.inputs[1:4]
    )
    sizes = np.array(reader.sizes(op.inputs[0]))[: len(begin)]
    begin = np.where(begin < 0, begin + sizes, begin).clip(0, sizes - 1)
    for axis in range(len(begin)):
        if options.beginMask >> axis & 1:
            begin[axis] = 0 if steps[axis] > 0 else sizes[axis] - 1
    return _box(reader, index, op, begin, steps)


def split(reader: ModelReader, index: int, op: Any) -> list[Node]:
    """SPLIT: channels in parts of one size."""
    return _parts(reader, index, op, op.inputs[1], op.inputs[0])


def split_v(reader: ModelReader, index: int, op: Any) -> list[Node]:
    """SPLIT_V: channels in parts of any size."""
    return _parts(reader, index, op, op.inputs[0], op.inputs[2])


def depth_to_space(reader: ModelReader, index: int, op: Any) -> Node:
    """DEPTH_TO_SPACE: sets of channels become the pixels of a block."""
    block = int(op.builtinOptions.blockSize)
    channels = np.arange(reader.shape(op.inputs[0])[2])
    return node_of(
        reader,
        "depth_to_space",
        index,
        op.inputs[:1],
        window=Window(stride=(block, block)),
        arrays={"channels": channels},
    )


def image(reader: ModelReader, index: int, op: Any) -> Node:
    """RESHAPE: one pixel becomes an image, whose pixels are its sets of channels."""
    height, width, _ = reader.shape(op.outputs[0])
    channels = np.arange(reader.shape(op.inputs[0])[2])
    return node_of(
        reader,
        "depth_to_space",
        index,
        op.inputs[:1],
        window=Window(stride=(height, width)),
        arrays={"channels": channels},
    )


def space_to_depth(reader: ModelReader, index: int, op: Any) -> Node:
    """SPACE_TO_DEPTH: the pixels of a block become sets of channels."""
    block = int(op.builtinOptions.blockSize)
    channels = reader.shape(op.inputs[0])[2]
    rows, columns, sources = np.indices((block, block, channels)).reshape(3, -1)
    return node_of(
        reader,
        "space_to_depth",
        index,
        op.inputs[:1],
        window=Window(stride=(block, block)),
        arrays={"rows": rows, "columns": columns, "channels": sources},
    )


def transposed(reader: ModelReader, index: int) -> Node | None:
    """A reshape, a transpose and a reshape: a channel shuffle, or a pixel shuffle."""
    chain = reader.chain(index, ["RESHAPE", "TRANSPOSE", "RESHAPE"])
    if chain is None:
        return None
    source, target = reader.between(chain)
    if not source or not target:
        return None
    middle = reader.graph.ops[chain[1]]
    sizes = reader.sizes(middle.inputs[0])
    order = reader.constant(middle.inputs[1]).reshape(-1).astype(int)
    moved = np.arange(np.prod(source)).reshape(sizes).transpose(order).reshape(target)
    moves = _moves(moved, source)
    if moves is None:
        return None
    kind, window, arrays = moves
    return node_of(
        reader,
        kind,
        index,
        reader.graph.ops[index].inputs[:1],
        ops=chain,
        output=int(reader.graph.ops[chain[-1]].outputs[0]),
        window=window,
        arrays=arrays,
    )


def _moves(
    moved: NDArray, source: tuple[int, ...]
) -> tuple[str, Window, dict[str, NDArray]] | None:
    """What moves values from where `moved` says, as a kind of node and its fields."""
    pixels, from_c = np.divmod(moved, source[2])
    from_y, from_x = np.divmod(pixels, source[1])
    height, width, channels = (int(size) for size in np.shape(moved))
    y, x, c = np.ogrid[:height, :width, :channels]
    if height % source[0] == 0 and width % source[1] == 0:
        stride = (height // source[0], width // source[1])
        table = from_c[: stride[0], : stride[1]]
        if (
            np.array_equal(from_y, np.broadcast_to(y // stride[0], moved.shape))
            and np.array_equal(from_x, np.broadcast_to(x // stride[1], moved.shape))
            and np.array_equal(from_c, table[y % stride[0], x % stride[1], c])
        ):
            kind = "gather" if stride == (1, 1) else "depth_to_space"
            window = Window() if kind == "gather" else Window(stride=stride)
            return kind, window, {"channels": table.reshape(-1)}
    if source[0] % height == 0 and source[1] % width == 0:
        stride = (source[0] // height, source[1] // width)
        rows, columns, sources = from_y[0, 0], from_x[0, 0], from_c[0, 0]
        if (
            np.array_equal(from_y, np.broadcast_to(y * stride[0] + rows, moved.shape))
            and np.array_equal(
                from_x, np.broadcast_to(x * stride[1] + columns, moved.shape)
            )
            and np.array_equal(from_c, np.broadcast_to(sources, moved.shape))
        ):
            arrays = {"rows": rows, "columns": columns, "channels": sources}
            return "space_to_depth", Window(stride=stride), arrays
    return None


def _box(
    reader: ModelReader, index: int, op: Any, begin: NDArray, steps: NDArray
) -> Node:
    """Every `steps`-th pixel and channel from `begin` on."""
    source, target = reader.shape(op.inputs[0]), reader.shape(op.outputs[0])
    rank = len(reader.sizes(op.inputs[0]))
    if len(begin) != rank:
        raise Unsupported("a slice that names some axes only")
    # Tensors of fewer axes are images of one row, or one pixel.
    first, step = np.zeros(3, int), np.ones(3, int)
    first[4 - rank :], step[4 - rank :] = begin[1:], steps[1:]
    if min(step[:2]) < 1:
        raise Unsupported("a slice that takes pixels backwards")
    channels = first[2] + step[2] * np.arange(target[2])
    window = Window(stride=(int(step[0]), int(step[1])), top=-int(first[0]),
                    left=-int(first[1]))  # fmt: skip
    if window.stride == (1, 1) and np.array_equal(channels, np.arange(source[2])):
        top, left = -window.top, -window.left
        widths = (
            -top, top + target[0] - source[0], -left, left + target[1] - source[1],
        )  # fmt: skip
        return node_of(reader, "pad", index, op.inputs[:1], widths=widths)
    return node_of(
        reader,
        "gather",
        index,
        op.inputs[:1],
        window=window,
        arrays={"channels": channels},
    )


def _parts(
    reader: ModelReader, index: int, op: Any, value: int, axis: int
) -> list[Node]:
    rank = len(reader.sizes(value))
    if int(reader.constant(axis).reshape(-1)[0]) % rank != rank - 1:
        raise Unsupported("it splits something else than channels")
    nodes, first = [], 0
    for output in map(int, op.outputs):
        end = first + reader.shape(output)[2]
        channels = np.arange(first, end)
        nodes.append(
            node_of(
                reader,
                "gather",
                index,
                [value],
                output=output,
                arrays={"channels": channels},
            )
        )
        first = end
    return nodes
