"""Packed activations: the readable reference that every other codec is checked against.

`pack` stores a whole tensor as strips of rows, `pack_strip` one strip alone; both take
float32 values or integer codes. Geometry, masks and code lengths come from the layer's
`LayerTable`, and `export/FORMAT.md` describes the result byte for byte. Three storage
classes:

- `"raw"`: n bits a value and m bits for the residual of an important channel;
- `"residual"`: the residuals in Huffman code;
- `"all"`: the base codes in Huffman code too.

>>> import numpy as np
>>> from dqa_keras import huffman, packing
>>> from dqa_keras.tables import LayerTable
>>> table = LayerTable(
...     name="relu", bits=4, extra_bits=2, signed=False, shape=(2, 3, 2),
...     mask=np.array([True, False]), scale=np.float32([0.25, 1.0]),
...     residual_lengths=np.uint8([1, 2, 3, 3]), base_lengths=np.full(16, 4, np.uint8),
... )
>>> x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
>>> blob = packing.pack(x, table, "raw")
>>> len(blob)  # 20 bytes of header and directory, 6 of base codes, 2 of residuals
28
>>> np.array_equal(packing.unpack(blob, table, x.shape), x)
True

Everything here is NumPy; `dqa_keras.codec` has the same functions in C++.
"""

import dataclasses
import struct
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dqa_keras import blocks
from dqa_keras.tables import LayerTable

Storage = Literal["raw", "residual", "all"]
STORAGES: tuple[Storage, ...] = ("raw", "residual", "all")

MAGIC = b"DQAP"
VERSION = 1
HEADER = struct.Struct("<4sBBHII")
# Enough values to make the work outweigh a strip's fixed cost; 36 KB at n=4, m=2.
STRIP_VALUES = 65536


@dataclasses.dataclass(frozen=True)
class Header:
    """What a blob says of itself.

    Args:
        storage: `"raw"`, `"residual"` or `"all"`.
        rows: Integer. Rows of the whole tensor.
        strip_rows: Integer. Rows of a strip; the last may have fewer.
        offsets: Tuple of integers: where each strip begins in the blob, then where the
            last one ends.
    """

    storage: Storage
    rows: int
    strip_rows: int
    offsets: tuple[int, ...]

    def rows_of(self, strip: int) -> int:
        """Rows of one strip."""
        return min(self.strip_rows, self.rows - strip * self.strip_rows)


def code_dtype(table: LayerTable) -> np.dtype[Any]:
    """Dtype of the table's codes: int8 if they are signed, uint8 if not."""
    return np.dtype(np.int8 if table.signed else np.uint8)


def code_limits(table: LayerTable) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smallest and largest code of each channel: two float32 arrays (C,)."""
    levels = np.where(table.mask, 2 ** (table.bits + table.extra_bits), 2**table.bits)
    low = -levels // 2 if table.signed else np.zeros_like(levels)
    return low.astype(np.float32), (low + levels - 1).astype(np.float32)


def quantize(values: NDArray[np.float32], table: LayerTable) -> NDArray[np.integer]:
    """Codes of values: `clip(rint(x * inverse_scale))`; NaN becomes the smallest code.

    Args:
        values: Float32 array (..., C).
        table: `LayerTable` of C channels.

    Returns:
        Array (..., C) of `code_dtype(table)`.
    """
    low, high = code_limits(table)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities and NaN are data
        scaled = np.rint(values * table.inverse_scale)
    codes = np.minimum(np.where(scaled > low, scaled, low), high)
    return codes.astype(code_dtype(table))


def dequantize(codes: NDArray[np.integer], table: LayerTable) -> NDArray[np.float32]:
    """Values of codes, `q * scale`: float32 array (..., C)."""
    return codes.astype(np.float32) * table.scale


def row_values(table: LayerTable, shape: tuple[int, ...]) -> int:
    """Values in one row of a tensor of this shape.

    Args:
        table: `LayerTable`.
        shape: Tuple of integers, with the batch axis first.

    Returns:
        Integer: the product of all axes behind the batch and the first spatial one.

    Raises:
        ValueError: If the shape does not fit the table, or has an empty axis.
    """
    known = table.shape
    fits = len(shape) == len(known) + 1 and all(
        expected in (0, size) for expected, size in zip(known, shape[1:], strict=True)
    )
    if not fits or min(shape) < 1:
        raise ValueError(
            f"shape must be (batch, {', '.join(str(size or 'any') for size in known)}) "
            f"with no empty axis. Received: shape={tuple(shape)}"
        )
    axes = shape[2:] if len(shape) > 2 else shape[1:]
    return int(np.prod(axes, dtype=np.int64))


def default_strip_rows(rows: int, values: int) -> int:
    """Rows of a strip for a writer that has no reason of its own.

    Args:
        rows: Integer. Rows of the tensor.
        values: Integer. Values in a row.

    Returns:
        Integer in 1..rows: the fewest that give `STRIP_VALUES` values.
    """
    return min(rows, -(-STRIP_VALUES // values))


def strip_bound(table: LayerTable, pixels: int, storage: Storage) -> int:
    """Most bytes that a strip of `pixels` pixels can take; exact for `"raw"`."""
    base = pixels * table.mask.size, table.bits
    residual = pixels * int(table.mask.sum()), table.extra_bits
    base_size = blocks.blocks_bound if storage == "all" else blocks.plane_size
    residual_size = blocks.plane_size if storage == "raw" else blocks.blocks_bound
    return base_size(*base) + residual_size(*residual)


def blob_bound(
    table: LayerTable,
    shape: tuple[int, ...],
    storage: Storage = "residual",
    strip_rows: int | None = None,
) -> int:
    """Most bytes that a packed tensor can take; exact for `"raw"`.

    Args:
        table: `LayerTable`.
        shape: Tuple of integers, with the batch axis first.
        storage: `"raw"`, `"residual"` or `"all"`. Defaults to `"residual"`.
        strip_rows: Integer or `None` for `default_strip_rows`. Defaults to `None`.

    Returns:
        Integer.

    Raises:
        ValueError: If an argument is out of range.
    """
    values, rows, strip_rows = check_geometry(table, shape, storage, strip_rows)
    pixels = values // table.mask.size
    whole, rest = divmod(rows, strip_rows)
    strips = whole + (rest > 0)
    return (
        HEADER.size
        + 4 * strips
        + whole * strip_bound(table, pixels * strip_rows, storage)
        + strip_bound(table, pixels * rest, storage)
    )


def check_geometry(
    table: LayerTable,
    shape: tuple[int, ...],
    storage: Storage,
    strip_rows: int | None,
) -> tuple[int, int, int]:
    """Checks what `pack` is asked for.

    Returns:
        Three integers: values in a row, rows, and rows of a strip.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check_storage(storage)
    values = row_values(table, shape)
    rows = int(np.prod(shape, dtype=np.int64)) // values
    if strip_rows is None:
        strip_rows = default_strip_rows(rows, values)
    if not 1 <= strip_rows <= rows:
        raise ValueError(
            f"strip_rows must be in 1..{rows}. Received: strip_rows={strip_rows}"
        )
    return values, rows, strip_rows


def check_dtype(table: LayerTable, dtype: Any) -> None:
    """Raises ValueError unless the dtype is float32 or that of the table's codes."""
    if np.dtype(dtype) not in (np.dtype(np.float32), code_dtype(table)):
        raise ValueError(
            f"dtype must be float32 for values or {code_dtype(table)} for codes. "
            f"Received: dtype={np.dtype(dtype)}"
        )


def check_strip(table: LayerTable, shape: tuple[int, ...], storage: Storage) -> int:
    """Checks what `pack_strip` is asked for.

    Returns:
        Integer: the pixels of rows of this shape.

    Raises:
        ValueError: If the storage class is unknown or the shape does not fit the table.
    """
    _check_storage(storage)
    channels = table.mask.size
    if len(shape) < 1 or shape[-1] != channels or min(shape) < 1:
        raise ValueError(
            f"shape must end in {channels} channels with no empty axis. "
            f"Received: shape={tuple(shape)}"
        )
    return int(np.prod(shape[:-1], dtype=np.int64))


def _check_storage(storage: Storage) -> None:
    if storage not in STORAGES:
        raise ValueError(
            f"storage must be one of {', '.join(map(repr, STORAGES))}. "
            f"Received: storage={storage!r}"
        )


def to_codes(x: NDArray[Any], table: LayerTable) -> NDArray[np.integer]:
    """Float32 values quantized, codes as they are.

    Raises:
        ValueError: If `x` is of another dtype.
    """
    check_dtype(table, x.dtype)
    return quantize(x, table) if x.dtype == np.float32 else x


def split_symbols(
    codes: NDArray[np.integer], table: LayerTable
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Base symbols of all values and residual symbols of the important ones."""
    pixels = codes.reshape(-1, table.mask.size)
    base = np.where(table.mask, pixels >> table.extra_bits, pixels).astype(np.uint8)
    residual = pixels[:, table.mask].astype(np.uint8)
    base &= 2**table.bits - 1
    residual &= 2**table.extra_bits - 1
    return base.ravel(), residual.ravel()


def _codes(
    base: NDArray[np.uint8], residual: NDArray[np.uint8], table: LayerTable
) -> NDArray[np.integer]:
    """The inverse of `split_symbols`: codes (pixels, C)."""
    mask = table.mask
    codes = base.reshape(-1, mask.size).astype(np.int16)
    codes[:, mask] <<= table.extra_bits
    codes[:, mask] |= residual.reshape(len(codes), int(mask.sum()))
    if table.signed:
        _, high = code_limits(table)
        codes -= np.where(codes > high, 2 * high + 2, 0).astype(np.int16)
    return codes.astype(code_dtype(table))


def pack_strip(x: NDArray[Any], table: LayerTable, storage: Storage) -> bytes:
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
    storage: Storage = "residual",
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
    header = HEADER.pack(MAGIC, VERSION, STORAGES.index(storage), 0, rows, strip_rows)
    ends = np.cumsum([len(strip) for strip in strips])
    return header + ends.astype("<u4").tobytes() + b"".join(strips)


def packed_size(
    x: NDArray[Any],
    table: LayerTable,
    storage: Storage = "residual",
    strip_rows: int | None = None,
) -> int:
    """Bytes that `pack` gives, counted without writing them.

    Args:
        x: As in `pack`.
        table: As in `pack`.
        storage: As in `pack`.
        strip_rows: As in `pack`.

    Returns:
        Integer: `len(pack(x, table, storage, strip_rows))`.

    Raises:
        ValueError: As `pack`.
    """
    x = np.asarray(x)
    values, rows, strip_rows = check_geometry(table, x.shape, storage, strip_rows)
    lines = to_codes(x, table).reshape(rows, values)
    total = HEADER.size + 4 * -(-rows // strip_rows)
    for first in range(0, rows, strip_rows):
        base, residual = split_symbols(lines[first : first + strip_rows], table)
        if storage == "all":
            total += blocks.blocks_size(base, table.bits, table.base_lengths)
        else:
            total += blocks.plane_size(base.size, table.bits)
        if storage == "raw":
            total += blocks.plane_size(residual.size, table.extra_bits)
        else:
            total += blocks.blocks_size(
                residual, table.extra_bits, table.residual_lengths
            )
    return total


def strips_sizes(
    residual: NDArray[np.uint8],
    table: LayerTable,
    row_values: int,
    base: NDArray[np.uint8] | None = None,
) -> NDArray[np.int64]:
    """Bytes of the strips of several tensors, in class `"residual"` or `"all"`.

    Strips have `default_strip_rows` rows. A blob has its header and directory on top,
    which a reader that keeps bare strips does without.

    Args:
        residual: Uint8 array (N, R, K). Residual symbols of each row of N tensors.
        table: `LayerTable`.
        row_values: Integer. Values in a row.
        base: Uint8 array (N, R, row_values). Base symbols, for class `"all"`; `None`
            for `"residual"`, where they take n bits each. Defaults to `None`.

    Returns:
        Int64 array (N,).
    """
    tensors, rows, _ = residual.shape
    strip_rows = default_strip_rows(rows, row_values)
    total = np.zeros(tensors, np.int64)
    for first in range(0, rows, strip_rows):
        strip = residual[:, first : first + strip_rows]
        height, symbols = strip.shape[1:]
        if base is None:
            total += blocks.plane_size(height * row_values, table.bits)
        else:
            total += blocks.blocks_sizes(
                base[:, first : first + strip_rows].reshape(tensors, -1),
                table.bits,
                table.base_lengths,
            )
        total += blocks.blocks_sizes(
            strip.reshape(tensors, height * symbols),
            table.extra_bits,
            table.residual_lengths,
        )
    return total


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
    if storage >= len(STORAGES) or reserved != 0:
        raise ValueError(
            f"storage class must be in 0..{len(STORAGES) - 1} and the reserved bytes "
            f"0. Received: storage={storage}, reserved={reserved}"
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
    return Header(STORAGES[storage], rows, strip_rows, offsets)


@dataclasses.dataclass
class _Section:
    """Streams of one kind of symbol, gathered over strips."""

    width: int
    lengths: NDArray[np.uint8]
    streams: list[blocks.Stream]
    count: int = 0

    def scan(self, data: bytes, offset: int, count: int, in_blocks: bool) -> int:
        """Adds a strip's section; returns the offset behind it."""
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
    data: bytes, bounds: list[tuple[int, int, int]], table: LayerTable, storage: Storage
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
    return _codes(base.decode(data), residual.decode(data), table)


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
    storage: Storage,
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
