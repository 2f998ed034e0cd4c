"""How much memory stored codes take if they are Huffman-coded.

The room that coded rows get is what calibration saw them take and a little more. Data
that compress worse lose nothing: rows that find no room are kept outside the arena for
the rest of the run, and count as spilled.
"""

import dataclasses
import math

from dqa_keras.codec.blocks import (
    BLOCK_SYMBOLS,
    FOUR_STREAMS_FROM,
    blocks_bound,
    plane_size,
)
from dqa_keras.codec.huffman import MAX_CODE_LENGTH
from dqa_keras.codec.sizes import StorageClass
from dqa_keras.export.plan.arena import align
from dqa_keras.export.plan.ops import GROUP
from dqa_keras.export.plan.program import Packing, Tensor
from dqa_keras.export.plan.records import Type

# Room for coded rows, over what calibration saw.
_MARGIN = 1.05
# Coding must save this share of a tensor's bytes, or costs time for nothing.
_WORTH = 1 / 16

# What the codec needs to encode a block: room for its four streams, as in
# export/native/codec/huffman.h.
_STREAM_BYTES = BLOCK_SYMBOLS // 4 * MAX_CODE_LENGTH // 8 + 16
_ENCODE_SCRATCH = 4 * _STREAM_BYTES
_PLANE_SLACK = 8
_DIRECTORY = 8  # bytes a row


def _symbols(tensor: Tensor, packing: Packing) -> tuple[int, int]:
    """Base codes and residuals of a row."""
    width = tensor.shape[1]
    important = int(packing.mask.sum()) * width if packing.extra_bits else 0
    return width * tensor.shape[2], important


def _expected(symbols: int, width: int, mean: float) -> float:
    """Bytes that blocks take if a symbol takes `mean` bits: sizes, ends of streams."""
    if symbols * width == 0:
        return 0.0
    streams = 4 if symbols >= FOUR_STREAMS_FROM else 1
    streams *= -(-symbols // BLOCK_SYMBOLS)
    return min(symbols * mean / 8 + 2.5 * streams, blocks_bound(symbols, width))


def row_bytes(tensor: Tensor) -> int:
    """Bytes of a row that is stored raw: a plane of base codes, one of residuals."""
    _, width, channels = tensor.shape
    packing = tensor.packing
    if packing is None:
        return width * channels * (2 if tensor.type == Type.WIDE else 1)
    base, residual = _symbols(tensor, packing)
    return plane_size(base, packing.bits) + plane_size(residual, packing.extra_bits)


def kept_row_bytes(tensor: Tensor, group: int, packed: bool) -> int:
    """Bytes of a row that is kept of a tensor whose channels come in groups.

    Args:
        tensor: `Tensor`.
        group: Integer. Channels of a group; the last one may have fewer.
        packed: Boolean. Whether each group is packed, with a table of its own.
    """
    return sum(map(row_bytes, group_tensors(tensor, group, packed)))


def group_tensors(tensor: Tensor, group: int, packed: bool = True) -> list[Tensor]:
    """The groups of channels of a tensor, each as a tensor that can be stored."""
    height, width, channels = tensor.shape
    groups = []
    for first in range(0, channels, group):
        packing = tensor.packing if packed else None
        if packing is not None:
            mask = packing.mask[first : first + group]
            packing = dataclasses.replace(packing, mask=mask)
        shape = (height, width, min(group, channels - first))
        groups.append(dataclasses.replace(tensor, shape=shape, packing=packing))
    return groups


def storage_class(tensor: Tensor) -> StorageClass:
    """The class that takes least memory; raw if coding is not worth it."""
    packing = tensor.packing
    if packing is None or not packing.layer:
        return "raw"
    raw = coded_bytes(tensor, "raw")
    # The rarer coded first: where both take as much it is faster.
    best: StorageClass = "residual"
    if coded_bytes(tensor, "all") < coded_bytes(tensor, "residual"):
        best = "all"
    saved = raw - coded_bytes(tensor, best)
    return best if saved > _WORTH * raw else "raw"


def coded_bytes(tensor: Tensor, storage: StorageClass) -> int:
    """Bytes of a stored tensor, its directory of rows included."""
    packing = tensor.packing
    if packing is None:
        raise ValueError("a tensor without packing cannot be coded")
    base, residual = _symbols(tensor, packing)
    row: float = plane_size(base, packing.bits)
    if storage == "all":
        row = _expected(base, packing.bits, packing.coded_bits[0])
    if storage == "raw":
        return tensor.shape[0] * row_bytes(tensor)
    row += _expected(residual, packing.extra_bits, packing.coded_bits[1])
    bound = row_bound(tensor, storage)
    room = math.ceil(tensor.shape[0] * min(_MARGIN * row, bound))
    return _DIRECTORY * tensor.shape[0] + room


def row_bound(tensor: Tensor, storage: StorageClass) -> int:
    """Most bytes of a coded row."""
    packing = tensor.packing
    if packing is None:
        raise ValueError("a tensor without packing cannot be coded")
    base, residual = _symbols(tensor, packing)
    bound = blocks_bound if storage == "all" else plane_size
    return bound(base, packing.bits) + blocks_bound(residual, packing.extra_bits)


def row_scratch(tensor: Tensor, storage: StorageClass) -> int:
    """Bytes for a row on its way to or from memory: codes, and what the codec needs."""
    _, width, channels = tensor.shape
    packing = tensor.packing
    if packing is None:
        return 0
    if storage == "raw":
        # Whole groups are packed where they lie in their line buffer.
        return 0 if channels % GROUP == 0 else width * channels
    base, residual = _symbols(tensor, packing)
    planes = plane_size(residual, packing.extra_bits) + _PLANE_SLACK
    if storage == "all":
        planes += plane_size(base, packing.bits) + _PLANE_SLACK
    room = align(width * channels) + align(row_bound(tensor, storage))
    return room + _ENCODE_SCRATCH + planes
