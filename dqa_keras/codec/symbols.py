"""Values of a layer as codes, and codes as the symbols that are stored.

The rules are those of `dqa_keras.quantizers`, here for one layer's `LayerTable`. Codes
of important channels split into a base symbol of n bits and a residual symbol of m.

>>> import numpy as np
>>> from dqa_keras.codec import symbols
>>> from dqa_keras.codec.layer_table import LayerTable
>>> table = LayerTable(
...     name="relu", bits=4, extra_bits=2, signed=False, shape=(2,),
...     mask=np.array([True, False]), scale=np.float32([0.25, 1.0]),
...     residual_lengths=np.uint8([1, 2, 3, 3]), base_lengths=np.full(16, 4, np.uint8),
... )
>>> codes = symbols.quantize(np.float32([[3.3, 3.3]]), table)
>>> base, residual = symbols.split_symbols(codes, table)
>>> codes.tolist(), base.tolist(), residual.tolist()
([[13, 3]], [3, 3], [1])
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.codec.layer_table import LayerTable


def code_dtype(table: LayerTable) -> np.dtype[Any]:
    """Dtype of the table's codes: int8 if they are signed, uint8 if not."""
    return np.dtype(np.int8 if table.signed else np.uint8)


def code_limits(table: LayerTable) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smallest and largest code of each channel: two float32 arrays (C,)."""
    plain = quantizers.code_limits(table.bits, table.signed)
    important = quantizers.code_limits(table.bits + table.extra_bits, table.signed)
    low, high = (
        np.where(table.mask, fine, coarse).astype(np.float32)
        for coarse, fine in zip(plain, important, strict=True)
    )
    return low, high


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


def check_dtype(table: LayerTable, dtype: Any) -> None:
    """Raises ValueError unless the dtype is float32 or that of the table's codes."""
    if np.dtype(dtype) not in (np.dtype(np.float32), code_dtype(table)):
        raise ValueError(
            f"dtype must be float32 for values or {code_dtype(table)} for codes. "
            f"Received: dtype={np.dtype(dtype)}"
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


def merge_symbols(
    base: NDArray[np.uint8], residual: NDArray[np.uint8], table: LayerTable
) -> NDArray[np.integer]:
    """The inverse of `split_symbols`: codes (pixels, C)."""
    mask = table.mask
    codes = base.reshape(-1, mask.size).astype(np.int16)
    codes[:, mask] <<= table.extra_bits
    codes[:, mask] |= residual.reshape(len(codes), int(mask.sum()))
    if table.signed:
        low, high = code_limits(table)
        codes -= np.where(codes > high, high - low + 1, 0).astype(np.int16)
    return codes.astype(code_dtype(table))
