"""How much memory stored codes take if they are Huffman-coded.

The room that coded rows get is what calibration saw them take and a little more. Data
that compress worse lose nothing: rows that find no room are kept outside the arena for
the rest of the run, and count as spilled.
"""

import math

from dqa_keras.export.plan.arena import align
from dqa_keras.export.plan.program import Packing, Tensor
from dqa_keras.export.plan.records import Storage

# Room for coded rows, over what calibration saw.
_MARGIN = 1.05
# Coding must save this share of a tensor's bytes, or costs time for nothing.
_WORTH = 1 / 16

# As in export/native/src/huffman.h.
_BLOCK = 16384
_ENCODE_SCRATCH = 4 * (_BLOCK // 4 * 12 // 8 + 16)
_PLANE_SLACK = 8
_DIRECTORY = 8  # bytes a row


def _plane(symbols: int, width: int) -> int:
    return -(-symbols * width // 8)


def _bound(symbols: int, width: int) -> int:
    """Most bytes that blocks of symbols take."""
    if symbols * width == 0:
        return 0
    return _plane(symbols, width) + 2 * -(-symbols // _BLOCK)


def _symbols(tensor: Tensor, packing: Packing) -> tuple[int, int]:
    """Base codes and residuals of a row."""
    width = tensor.shape[1]
    important = int(packing.mask.sum()) * width if packing.extra_bits else 0
    return width * tensor.shape[2], important


def _expected(symbols: int, width: int, mean: float) -> float:
    """Bytes that blocks take if a symbol takes `mean` bits: sizes, ends of streams."""
    if symbols * width == 0:
        return 0.0
    streams = (4 if symbols >= 256 else 1) * -(-symbols // _BLOCK)
    return min(symbols * mean / 8 + 2.5 * streams, _bound(symbols, width))


def storage_class(tensor: Tensor) -> Storage:
    """The class that takes least memory; raw if coding is not worth it."""
    packing = tensor.packing
    if packing is None or not packing.layer:
        return Storage.RAW
    raw = coded_bytes(tensor, Storage.RAW)
    # The rarer coded first: where both take as much it is faster.
    best = min((Storage.RESIDUAL, Storage.ALL), key=lambda s: coded_bytes(tensor, s))
    saved = raw - coded_bytes(tensor, best)
    return best if saved > _WORTH * raw else Storage.RAW


def coded_bytes(tensor: Tensor, storage: Storage) -> int:
    """Bytes of a stored tensor, its directory of rows included."""
    packing = tensor.packing
    if packing is None:
        raise ValueError("a tensor without packing cannot be coded")
    base, residual = _symbols(tensor, packing)
    row: float = _plane(base, packing.bits)
    if storage == Storage.ALL:
        row = _expected(base, packing.bits, packing.coded_bits[0])
    if storage == Storage.RAW:
        return tensor.shape[0] * (int(row) + _plane(residual, packing.extra_bits))
    row += _expected(residual, packing.extra_bits, packing.coded_bits[1])
    most = row_bound(tensor, storage)
    room = math.ceil(tensor.shape[0] * min(_MARGIN * row, most))
    return _DIRECTORY * tensor.shape[0] + room


def row_bound(tensor: Tensor, storage: Storage) -> int:
    """Most bytes of a coded row."""
    packing = tensor.packing
    if packing is None:
        raise ValueError("a tensor without packing cannot be coded")
    base, residual = _symbols(tensor, packing)
    bound = _bound if storage == Storage.ALL else _plane
    return bound(base, packing.bits) + _bound(residual, packing.extra_bits)


def row_scratch(tensor: Tensor, storage: Storage) -> int:
    """Bytes for a row on its way to or from memory: codes, and what the codec needs."""
    _, width, channels = tensor.shape
    packing = tensor.packing
    if packing is None:
        return 0
    if storage == Storage.RAW:
        return width * channels
    base, residual = _symbols(tensor, packing)
    planes = _plane(residual, packing.extra_bits) + _PLANE_SLACK
    if storage == Storage.ALL:
        planes += _plane(base, packing.bits) + _PLANE_SLACK
    room = align(width * channels) + align(row_bound(tensor, storage))
    return room + _ENCODE_SCRATCH + planes
