"""`DQA_RESIDUAL`: layer tables as bytes. `FORMAT.md` describes every one of them."""

import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dqa_keras.codec.layer_table import LayerTable, signed_of

NAME = "DQA_RESIDUAL"
MAGIC = b"DQAR"
VERSION = 2  # of files with a zero point
_WITHOUT_ZERO_POINTS = 1

_HEADER = struct.Struct("<4sHHI")
_CRC = struct.Struct("<I")


class MetadataError(ValueError):
    """A `.tflite` file, or the metadata in it, is not what it should be."""


def encode(tables: Iterable[LayerTable]) -> bytes:
    """The tables as one buffer."""
    tables = list(tables)
    records = [_record(table) for table in tables]
    version = VERSION if any(t.sign > 1 for t in tables) else _WITHOUT_ZERO_POINTS
    body = b"".join(records)
    size = _HEADER.size + len(body) + _CRC.size
    data = _HEADER.pack(MAGIC, version, len(records), size) + body
    return data + _CRC.pack(zlib.crc32(data))


def _record(table: LayerTable) -> bytes:
    name = table.name.encode()
    rank = len(table.shape)
    return b"".join(
        [
            struct.pack("<H", len(name)),
            name,
            struct.pack("<BBBB", table.bits, table.extra_bits, table.sign, rank),
            struct.pack(f"<{rank}I", *table.shape),
            np.packbits(table.mask, bitorder="little").tobytes(),
            table.scale.astype("<f4").tobytes(),
            table.residual_lengths.tobytes(),
            table.base_lengths.tobytes(),
        ]
    )


class _Reader:
    """Reads values one after the other and never reads past its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise MetadataError(
                f"{NAME} ends early: {size} bytes wanted at {self._position} of "
                f"{len(self._data)}"
            )
        content = self._data[self._position : end]
        self._position = end
        return content

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack("<" + form, self.read(struct.calcsize("<" + form)))

    def array(self, dtype: str, count: int) -> NDArray:
        return np.frombuffer(self.read(np.dtype(dtype).itemsize * count), dtype).astype(
            np.dtype(dtype).newbyteorder("=")
        )

    @property
    def left(self) -> int:
        return len(self._data) - self._position


def decode(data: bytes) -> list[LayerTable]:
    """The inverse of `encode`.

    Raises:
        MetadataError: If the buffer is truncated, foreign, damaged or of a newer
            version, or a table contradicts itself.
    """
    reader = _Reader(data)
    magic, version, count, size = _HEADER.unpack(reader.read(_HEADER.size))
    if magic != MAGIC:
        raise MetadataError(f"{NAME} must start with {MAGIC!r}. Received: {magic!r}")
    if not _WITHOUT_ZERO_POINTS <= version <= VERSION:
        raise MetadataError(
            f"{NAME} has version {version}; this dqa_keras reads versions up to "
            f"{VERSION}. "
            "Upgrade dqa_keras, or export the file again."
        )
    # A FlatBuffer may pad a buffer at its end.
    if not _HEADER.size + _CRC.size <= size <= len(data):
        raise MetadataError(
            f"{NAME} says it is {size} bytes long. Received: {len(data)} bytes"
        )
    body, (crc,) = data[: size - _CRC.size], _CRC.unpack(data[size - _CRC.size : size])
    if zlib.crc32(body) != crc:
        raise MetadataError(
            f"{NAME} is damaged: its CRC-32 is {zlib.crc32(body):08x}, "
            f"it should be {crc:08x}"
        )
    reader = _Reader(body)
    reader.read(_HEADER.size)
    tables = [_table(reader, version) for _ in range(count)]
    if reader.left:
        raise MetadataError(f"{NAME} has {reader.left} bytes behind its last table")
    names = [table.name for table in tables]
    if len(set(names)) < count:
        twice = next(name for name in names if names.count(name) > 1)
        raise MetadataError(f"{NAME}: names must be unique. Received: {twice!r} twice")
    return tables


def _table(reader: _Reader, version: int) -> LayerTable:
    (name_size,) = reader.numbers("H")
    try:
        name = reader.read(name_size).decode()
    except UnicodeDecodeError as error:
        raise MetadataError(f"{NAME} holds a layer name that is not UTF-8") from error
    bits, extra_bits, sign, rank = reader.numbers("BBBB")
    most = 1 if version == _WITHOUT_ZERO_POINTS else 255
    if not (1 <= bits <= 8 and extra_bits <= 4 and sign <= most and rank >= 1):
        raise MetadataError(
            f"{NAME}, layer {name!r}: bits={bits}, extra_bits={extra_bits}, "
            f"sign={sign}, rank={rank} is not possible"
        )
    shape = reader.numbers(f"{rank}I")
    channels = shape[-1]
    packed = reader.array("u1", (channels + 7) // 8)
    mask = np.unpackbits(packed, bitorder="little", count=channels).astype(bool)
    scale = reader.array("<f4", channels)
    residual_lengths = reader.array("u1", 2**extra_bits)
    base_lengths = reader.array("u1", 2**bits)
    try:
        return LayerTable(
            name=name,
            bits=bits,
            extra_bits=extra_bits,
            signed=signed_of(sign, bits),
            shape=shape,
            mask=mask,
            scale=scale,
            residual_lengths=residual_lengths,
            base_lengths=base_lengths,
        )
    except ValueError as error:
        raise MetadataError(f"{NAME}: {error}") from error
