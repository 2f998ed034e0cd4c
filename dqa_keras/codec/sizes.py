"""How a packed tensor is cut into strips, and the bytes that it takes.

Storage classes, strips and blobs are those of `dqa_keras.codec.reference`.
"""

import struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dqa_keras.codec import blocks
from dqa_keras.codec.layer_table import LayerTable

StorageClass = Literal["raw", "residual", "all"]
STORAGE_CLASSES: tuple[StorageClass, ...] = ("raw", "residual", "all")

HEADER = struct.Struct("<4sBBHII")
# Enough values to make the work outweigh a strip's fixed cost; 36 KB at n=4, m=2.
STRIP_VALUES = 65536


def row_values(table: LayerTable, shape: tuple[int, ...]) -> int:
    """Values in one row of a tensor of this shape.

    Args:
        table: `LayerTable`.
        shape: Tuple of integers, with the batch axis first.

    Returns:
        Integer: the product of all axes after the batch and the first spatial one.

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
    """Rows of a strip where the caller does not choose.

    Args:
        rows: Integer. Rows of the tensor.
        values: Integer. Values in a row.

    Returns:
        Integer in 1..rows: the fewest that give `STRIP_VALUES` values.
    """
    return min(rows, -(-STRIP_VALUES // values))


def check_geometry(
    table: LayerTable,
    shape: tuple[int, ...],
    storage: StorageClass,
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


def check_strip(
    table: LayerTable, shape: tuple[int, ...], storage: StorageClass
) -> int:
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


def _check_storage(storage: StorageClass) -> None:
    if storage not in STORAGE_CLASSES:
        raise ValueError(
            f"storage must be one of {', '.join(map(repr, STORAGE_CLASSES))}. "
            f"Received: storage={storage!r}"
        )


def strip_bound(table: LayerTable, pixels: int, storage: StorageClass) -> int:
    """Most bytes that a strip of `pixels` pixels can take; exact for `"raw"`."""
    base = pixels * table.mask.size, table.bits
    residual = pixels * int(table.mask.sum()), table.extra_bits
    base_size = blocks.blocks_bound if storage == "all" else blocks.plane_size
    residual_size = blocks.plane_size if storage == "raw" else blocks.blocks_bound
    return base_size(*base) + residual_size(*residual)


def blob_bound(
    table: LayerTable,
    shape: tuple[int, ...],
    storage: StorageClass = "residual",
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


def strips_sizes(
    residual: NDArray[np.uint8],
    table: LayerTable,
    row_values: int,
    base: NDArray[np.uint8] | None = None,
) -> NDArray[np.int64]:
    """Bytes of the strips of several tensors, in class `"residual"` or `"all"`.

    Strips have `default_strip_rows` rows. Header and directory are not counted.

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
