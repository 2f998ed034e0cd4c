"""Packed activations at memory speed: the compiled codec, or NumPy where there is none.

>>> import numpy as np
>>> from dqa_keras import codec
>>> from dqa_keras.codec.layer_table import LayerTable
>>> table = LayerTable(
...     name="relu", bits=4, extra_bits=2, signed=False, shape=(2, 3, 2),
...     mask=np.array([True, False]), scale=np.float32([0.25, 1.0]),
...     residual_lengths=np.uint8([1, 2, 3, 3]), base_lengths=np.full(16, 4, np.uint8),
... )
>>> x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
>>> fast = codec.Codec(table)
>>> blob = fast.pack(x, "raw")
>>> blob.size
28
>>> np.array_equal(fast.unpack(blob, x.shape), x)
True

Both write the same bytes: `export/FORMAT.md` leaves no choice. `runtime()` says which
one is in use, and why.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dqa_keras.codec import reference, sizes, symbols
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.codec.sizes import StorageClass

_native: Any = None
_missing = ""
try:
    from dqa_keras.codec import _codec
except ImportError as error:  # built without a compiler, or for another Python
    _missing = str(error)
else:
    _native = _codec

Bytes = bytes | bytearray | memoryview | NDArray[np.uint8]
Runtime = Literal["auto", "numpy", "scalar", "avx2", "neon"]


def runtime() -> str:
    """Which codec this process uses, and why: one line for `dqa inspect --runtime`."""
    if _native is None:
        return f"numpy: the compiled codec is not installed ({_missing})"
    isa = _native.best_isa()
    if isa == "scalar":
        return "native, scalar: this machine has neither AVX2 with BMI2 nor NEON"
    return f"native, {isa}: compiled codec, and this machine has {isa.upper()}"


class Codec:
    """Packs and unpacks the activations of one layer.

    Args:
        table: `LayerTable` of the layer.
        runtime: `"auto"` for the fastest, `"numpy"` for the reference, or an
            instruction set of the compiled codec: `"scalar"`, `"avx2"`, `"neon"`.
            Defaults to `"auto"`.

    Raises:
        ValueError: If this machine or this build lacks the runtime.
    """

    def __init__(self, table: LayerTable, runtime: Runtime = "auto") -> None:
        """Prepares the table's look-ups."""
        self.table = table
        self._native: Any = None
        if runtime == "numpy" or (runtime == "auto" and _native is None):
            return
        if _native is None:
            raise ValueError(
                f"runtime must be 'auto' or 'numpy' without the compiled codec "
                f"({_missing}). Received: runtime={runtime!r}"
            )
        self._native = _native.Codec(
            bits=table.bits,
            extra_bits=table.extra_bits,
            sign=table.sign,
            mask=np.ascontiguousarray(table.mask).view(np.uint8),
            scale=np.ascontiguousarray(table.scale, np.float32),
            residual_lengths=np.ascontiguousarray(table.residual_lengths, np.uint8),
            base_lengths=np.ascontiguousarray(table.base_lengths, np.uint8),
            isa=runtime,
        )

    @property
    def runtime(self) -> str:
        """`"numpy"`, `"scalar"`, `"avx2"` or `"neon"`."""
        return "numpy" if self._native is None else str(self._native.isa)

    @property
    def native(self) -> Any:
        """The compiled codec of this table, `None` for the reference."""
        return self._native

    def pack(
        self,
        x: NDArray[Any],
        storage: StorageClass = "residual",
        strip_rows: int | None = None,
        threads: int = 1,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Stores a whole tensor.

        Args:
            x: Array (N, ..., C), float32 values or codes (int8 if the table is signed,
                uint8 if not).
            storage: `"raw"`, `"residual"` or `"all"`. Defaults to `"residual"`.
            strip_rows: Integer or `None` for `sizes.default_strip_rows`. Defaults to
                `None`.
            threads: Integer. Threads to use at most; the reference uses one. Defaults
                to `1`.
            out: Uint8 array (B,) to write to, B at least `sizes.blob_bound(...)`, or
                `None` for a new one. Defaults to `None`.

        Returns:
            Uint8 array: the blob, in the first bytes of `out`.

        Raises:
            ValueError: If an argument is out of range or does not fit the table.
        """
        x = np.asarray(x)
        _, rows, strip_rows = sizes.check_geometry(
            self.table, x.shape, storage, strip_rows
        )
        _check_threads(threads)
        bound = sizes.blob_bound(self.table, x.shape, storage, strip_rows)
        out = _room(out, bound)
        if self._native is None:
            return _copy(reference.pack(x, self.table, storage, strip_rows), out)
        size = self._native.pack(
            self._flat(x),
            sizes.STORAGE_CLASSES.index(storage),
            rows,
            strip_rows,
            threads,
            out,
        )
        return out[:size]

    def unpack(
        self,
        blob: Bytes,
        shape: tuple[int, ...],
        dtype: Any = np.float32,
        threads: int = 1,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Reads a whole tensor back.

        Args:
            blob: Bytes or uint8 array, as `pack` gave it.
            shape: Tuple of integers (N, ..., C): the shape of the tensor.
            dtype: Float32 for values, int8 or uint8 (whichever the codes are) for
                codes. Defaults to float32.
            threads: Integer. Threads to use at most; the reference uses one. Defaults
                to `1`.
            out: Contiguous array of this shape and dtype to write to, or `None` for a
                new one. Defaults to `None`.

        Returns:
            Array of this shape and dtype.

        Raises:
            ValueError: If the blob breaks a rule of the format or does not fit the
                shape.
        """
        _, rows, _ = sizes.check_geometry(self.table, shape, "raw", None)
        _check_threads(threads)
        out = self._output(out, shape, dtype)
        if self._native is None:
            out[...] = reference.unpack(bytes(blob), self.table, shape, dtype)
        else:
            self._native.unpack(_bytes(blob), rows, threads, self._flat(out))
        return out

    def pack_strip(
        self,
        x: NDArray[Any],
        storage: StorageClass,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Stores some rows without header or directory.

        Args:
            x: Array (..., C), float32 values or codes.
            storage: `"raw"`, `"residual"` or `"all"`.
            out: Uint8 array (B,), B at least `sizes.strip_bound(...)`, or `None` for
                a new one. Defaults to `None`.

        Returns:
            Uint8 array: the strip, in the first bytes of `out`.

        Raises:
            ValueError: If an argument is out of range or does not fit the table.
        """
        x = np.asarray(x)
        pixels = sizes.check_strip(self.table, x.shape, storage)
        out = _room(out, sizes.strip_bound(self.table, pixels, storage))
        if self._native is None:
            return _copy(reference.pack_strip(x, self.table, storage), out)
        size = self._native.pack_strip(
            self._flat(x), sizes.STORAGE_CLASSES.index(storage), out
        )
        return out[:size]

    def unpack_strip(
        self,
        strip: Bytes,
        shape: tuple[int, ...],
        storage: StorageClass,
        dtype: Any = np.float32,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Reads some rows back.

        Args:
            strip: Bytes or uint8 array, as `pack_strip` gave it.
            shape: Tuple of integers (..., C): the shape of the rows.
            storage: `"raw"`, `"residual"` or `"all"`.
            dtype: As in `unpack`. Defaults to float32.
            out: As in `unpack`. Defaults to `None`.

        Returns:
            Array of this shape and dtype.

        Raises:
            ValueError: If the strip breaks a rule of the format.
        """
        sizes.check_strip(self.table, shape, storage)
        out = self._output(out, shape, dtype)
        if self._native is None:
            out[...] = reference.unpack_strip(
                bytes(strip), self.table, shape, storage, dtype
            )
        else:
            self._native.unpack_strip(
                _bytes(strip), sizes.STORAGE_CLASSES.index(storage), self._flat(out)
            )
        return out

    def _flat(self, x: NDArray[Any]) -> NDArray[Any]:
        """One axis, codes viewed as bytes; no copy if `x` is contiguous."""
        symbols.check_dtype(self.table, x.dtype)
        flat = np.ascontiguousarray(x).reshape(-1)
        return flat if flat.dtype == np.float32 else flat.view(np.uint8)

    def _output(
        self, out: NDArray[Any] | None, shape: tuple[int, ...], dtype: Any
    ) -> NDArray[Any]:
        symbols.check_dtype(self.table, dtype)
        if out is None:
            return np.empty(shape, dtype)
        if (
            out.shape != tuple(shape)
            or out.dtype != dtype
            or not out.flags.c_contiguous
        ):
            raise ValueError(
                f"out must be contiguous, of shape {tuple(shape)} and dtype "
                f"{np.dtype(dtype)}. Received: shape={out.shape}, dtype={out.dtype}, "
                f"contiguous={out.flags.c_contiguous}"
            )
        return out


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise ValueError(f"threads must be at least 1. Received: threads={threads}")


def _bytes(data: Bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _room(out: NDArray[np.uint8] | None, bound: int) -> NDArray[np.uint8]:
    if out is None:
        return np.empty(bound, np.uint8)
    if out.dtype != np.uint8 or out.ndim != 1 or out.size < bound:
        raise ValueError(
            f"out must be a uint8 array of one axis with at least {bound} elements. "
            f"Received: shape={out.shape}, dtype={out.dtype}"
        )
    return out


def _copy(data: bytes, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out[: len(data)] = np.frombuffer(data, np.uint8)
    return out[: len(data)]
