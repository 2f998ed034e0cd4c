"""Packed activations: the readable reference that every other codec is checked against.

`pack` stores a whole tensor as strips of rows, `pack_strip` one strip alone. Both take
float32 values or integer codes. Shapes, masks and code lengths come from the layer's
`LayerTable`. `export/FORMAT.md` describes the result byte for byte. There are three
storage classes:

- `"raw"`: n bits a value and m bits for the residual of an important channel;
- `"residual"`: the residuals in Huffman code;
- `"all"`: the base codes in Huffman code too.

>>> import numpy as np
>>> from dqa_keras.codec import huffman, reference
>>> from dqa_keras.codec.layer_table import LayerTable
>>> table = LayerTable(
...     name="relu", bits=4, extra_bits=2, signed=False, shape=(2, 3, 2),
...     mask=np.array([True, False]), scale=np.float32([0.25, 1.0]),
...     residual_lengths=np.uint8([1, 2, 3, 3]), base_lengths=np.full(16, 4, np.uint8),
... )
>>> x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
>>> blob = reference.pack(x, table, "raw")
>>> len(blob)  # 20 bytes of header and directory, 6 of base codes, 2 of residuals
28
>>> np.array_equal(reference.unpack(blob, table, x.shape), x)
True

All of this is NumPy; `dqa_keras.codec` has the same functions in C++.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.codec import blocks
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.codec.sizes import (
    HEADER,
    STORAGE_CLASSES,
    StorageClass,
    check_geometry,
    check_strip,
)
from dqa_keras.codec.symbols import (
    check_dtype,
    dequantize,
    merge_symbols,
    split_symbols,
    to_codes,
)

MAGIC = b"DQAP"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Header:
    """Header and directory of a blob.

    Args:
        storage: `"raw"`, `"residual"` or `"all"`.
        rows: Integer. Rows of the whole tensor.
        strip_rows: Integer. Rows of a strip; the last may have fewer.
        offsets: Tuple of integers: where each strip begins in the blob, then where the
            last one ends.
    """

    storage: StorageClass
    rows: int
    strip_rows: int
    offsets: tuple[int, ...]

    def rows_of(self, strip: int) -> int:
        """Rows of one strip."""
        return min(self.strip_rows, self.rows - strip * self.strip_rows)


def pack_strip(x: NDArray[Any], table: LayerTable, storage: StorageClass) -> bytes:
    """Stores some rows without header or directory.

    Args:
        x: Array (..., C), float32 values or codes of `code_dtype(table)`.
        table: `LayerTable` of C channels.
        storage: `"raw"`, `"residual"` or `"all"`.

    Returns:
        At most `strip_bound(...)` bytes.

    Raises:
        ValueError: If an argument is out of range or does not fit the table.
    """
    x = np.asarray(x)
    check_strip(table, x.shape, storage)
    base, residual = split_symbols(to_codes(x, table), table)
    if storage == "all":
        first = blocks.write_blocks(base, table.bits, table.base_lengths)
    else:
        first = blocks.write_plane(base, table.bits)
    if storage == "raw":
        return first + blocks.write_plane(residual, table.extra_bits)
    return first + blocks.write_blocks(
        residual, table.extra_bits, table.residual_lengths
    )


def pack(
    x: NDArray[Any],
    table: LayerTable,
    storage: StorageClass = "residual",
    strip_rows: int | None = None,
) -> bytes:
    """Stores a whole tensor.

    Args:
        x: Array (N, ..., C), float32 values or codes of `code_dtype(table)`.
        table: `LayerTable` that fits the shape.
        storage: `"raw"`, `"residual"` or `"all"`. Defaults to `"residual"`.
        strip_rows: Integer or `None` for `default_strip_rows`. Defaults to `None`.

    Returns:
        The blob.

    Raises:
        ValueError: If an argument is out of range or does not fit the table.
    """
    x = np.asarray(x)
    _, rows, strip_rows = check_geometry(table, x.shape, storage, strip_rows)
    lines = to_codes(x, table).reshape(rows, -1, table.mask.size)
    strips = [
        pack_strip(lines[first : first + strip_rows], table, storage)
        for first in range(0, rows, strip_rows)
    ]
    header = HEADER.pack(
        MAGIC, VERSION, STORAGE_CLASSES.index(storage), 0, rows, strip_rows
    )
    ends = np.cumsum([len(strip) for strip in strips])
    return header + ends.astype("<u4").tobytes() + b"".join(strips)


def read_header(blob: bytes) -> Header:
    """Reads and checks header and directory of a blob.

    Raises:
        ValueError: If the blob breaks a rule of the format; the message names it.
    """
    if len(blob) < HEADER.size:
        raise ValueError(
            f"a blob must have at least {HEADER.size} bytes; it is truncated. "
            f"Received: {len(blob)} bytes"
        )
    magic, version, storage, reserved, rows, strip_rows = HEADER.unpack_from(blob)
    if magic != MAGIC:
        raise ValueError(f"a blob must start with {MAGIC!r}. Received: {magic!r}")
    if version != VERSION:
        raise ValueError(f"version must be {VERSION}. Received: version={version}")
    if storage >= len(STORAGE_CLASSES) or reserved != 0:
        raise ValueError(
            f"storage class must be in 0..{len(STORAGE_CLASSES) - 1} and the "
            f"reserved bytes 0. Received: storage={storage}, reserved={reserved}"
        )
    if not 1 <= strip_rows <= rows:
        raise ValueError(
            "rows and strip_rows must be 1 <= strip_rows <= rows. "
            f"Received: rows={rows}, strip_rows={strip_rows}"
        )
    strips = -(-rows // strip_rows)
    begin = HEADER.size + 4 * strips
    if len(blob) < begin:
        raise ValueError(
            f"a directory of {strips} strips must have {4 * strips} bytes; the blob is "
            f"truncated. Received: {len(blob) - HEADER.size} bytes"
        )
    ends = np.frombuffer(blob, "<u4", strips, HEADER.size).astype(np.int64)
    if np.any(np.diff(ends, prepend=0) <= 0):
        raise ValueError("the directory's strip ends must rise. Received: they do not")
    if begin + ends[-1] != len(blob):
        state = "truncated" if begin + ends[-1] > len(blob) else "oversized"
        raise ValueError(
            f"a blob must end with its last strip, at byte {begin + ends[-1]}; it is "
            f"{state}. Received: {len(blob)} bytes"
        )
    offsets = (begin, *(begin + ends).tolist())
    return Header(STORAGE_CLASSES[storage], rows, strip_rows, offsets)


@dataclasses.dataclass
class _Section:
    """Streams of one kind of symbol, gathered over strips."""

    width: int
    lengths: NDArray[np.uint8]
    streams: list[blocks.Stream]
    count: int = 0

    def scan(self, data: bytes, offset: int, count: int, in_blocks: bool) -> int:
        """Adds a strip's section; returns the offset of the first byte after it."""
        if in_blocks:
            streams, end = blocks.scan_blocks(
                data, offset, count, self.width, self.count
            )
        else:
            size = blocks.plane_size(count, self.width)
            streams = [blocks.Stream(offset, size, self.count, count, coded=False)]
            end = offset + size
        self.streams += streams
        self.count += count
        return end

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        return blocks.decode_streams(
            data, self.streams, self.count, self.width, self.lengths
        )


def _read_strips(
    data: bytes,
    bounds: list[tuple[int, int, int]],
    table: LayerTable,
    storage: StorageClass,
) -> NDArray[np.integer]:
    """Codes (pixels, C) of strips given as (begin, end, pixels)."""
    base = _Section(table.bits, table.base_lengths, [])
    residual = _Section(table.extra_bits, table.residual_lengths, [])
    important = int(table.mask.sum())
    for begin, end, pixels in bounds:
        strip = data[:end]
        at = base.scan(strip, begin, pixels * table.mask.size, storage == "all")
        if at <= end:
            at = residual.scan(strip, at, pixels * important, storage != "raw")
        if at != end:
            state = "truncated" if at > end else "oversized"
            raise ValueError(
                f"a strip's sections must fill it; it is {state}. Received: they end "
                f"at byte {at}, the strip at {end}"
            )
    return merge_symbols(base.decode(data), residual.decode(data), table)


def _finish(
    codes: NDArray[np.integer],
    table: LayerTable,
    shape: tuple[int, ...],
    dtype: Any,
) -> NDArray[Any]:
    check_dtype(table, dtype)
    if np.dtype(dtype) == np.float32:
        return dequantize(codes, table).reshape(shape)
    return codes.reshape(shape)


def unpack_strip(
    strip: bytes,
    table: LayerTable,
    shape: tuple[int, ...],
    storage: StorageClass,
    dtype: Any = np.float32,
) -> NDArray[Any]:
    """The inverse of `pack_strip`.

    Args:
        strip: Bytes.
        table: `LayerTable` of C channels.
        shape: Tuple of integers (..., C): the shape of the rows.
        storage: `"raw"`, `"residual"` or `"all"`.
        dtype: Float32 for values, `code_dtype(table)` for codes. Defaults to float32.

    Returns:
        Array of this shape and dtype.

    Raises:
        ValueError: If the strip breaks a rule of the format.
    """
    pixels = check_strip(table, shape, storage)
    codes = _read_strips(bytes(strip), [(0, len(strip), pixels)], table, storage)
    return _finish(codes, table, shape, dtype)


def unpack(
    blob: bytes,
    table: LayerTable,
    shape: tuple[int, ...],
    dtype: Any = np.float32,
) -> NDArray[Any]:
    """The inverse of `pack`.

    Args:
        blob: Bytes.
        table: `LayerTable` that the blob was written with.
        shape: Tuple of integers (N, ..., C): the shape of the tensor.
        dtype: Float32 for values, `code_dtype(table)` for codes. Defaults to float32.

    Returns:
        Array of this shape and dtype.

    Raises:
        ValueError: If the blob breaks a rule of the format or does not fit the shape.
    """
    blob = bytes(blob)
    header = read_header(blob)
    values, rows, _ = check_geometry(table, shape, header.storage, None)
    check_rows(header, rows, shape)
    pixels = values // table.mask.size
    bounds = [
        (begin, end, pixels * header.rows_of(strip))
        for strip, (begin, end) in enumerate(
            zip(header.offsets[:-1], header.offsets[1:], strict=True)
        )
    ]
    codes = _read_strips(blob, bounds, table, header.storage)
    return _finish(codes, table, shape, dtype)


def check_rows(header: Header, rows: int, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the blob has the rows of the shape asked for."""
    if header.rows != rows:
        raise ValueError(
            f"shape {tuple(shape)} has {rows} rows. Received: a blob of "
            f"{header.rows} rows"
        )
