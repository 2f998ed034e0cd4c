"""DQA_RESIDUAL: the bytes, and what its two readers refuse."""

import dataclasses
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqa_keras import LayerTable
from dqa_keras.codec import huffman
from dqa_keras.codec import native as codec
from dqa_keras.codec.layer_table import signed_of
from dqa_keras.export import MetadataError
from dqa_keras.export.litert.residual_table import decode, encode

GOLDEN = Path(__file__).parents[2] / "golden" / "metadata"


def make_table(name="relu", bits=4, extra_bits=2, channels=5, seed=0):
    random = np.random.default_rng(seed)
    sign = seed % 4
    if sign > 2 ** (bits - 1) or bits + extra_bits > 7:
        sign %= 2
    return LayerTable(
        name=name,
        bits=bits,
        extra_bits=extra_bits,
        signed=signed_of(sign, bits),
        shape=(3, 0, channels),
        mask=random.random(channels) < 0.5,
        scale=random.random(channels).astype(np.float32) + np.float32(0.01),
        residual_lengths=huffman.code_lengths(random.integers(0, 99, 2**extra_bits)),
        base_lengths=huffman.code_lengths(random.integers(0, 99, 2**bits)),
    )


def with_crc(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, min(4, 8 - n)))
    ),
    st.integers(1, 40),
    st.integers(0, 99),
)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_tables_come_back_as_they_went(bits, channels, seed):
    tables = [
        make_table("first", *bits, channels, seed),
        make_table("zweite Schicht ä", *bits, channels + 1, seed + 1),
    ]
    assert decode(encode(tables)) == tables


def test_bytes_are_those_of_the_format_description():
    table = LayerTable(
        name="r",
        bits=1,
        extra_bits=1,
        signed=True,
        shape=(2, 3),
        mask=np.array([True, False, True]),
        scale=np.float32([0.5, 1.0, 2.0]),
        residual_lengths=np.uint8([1, 1]),
        base_lengths=np.uint8([1, 1]),
    )
    record = b"\x01\x00r" + bytes([1, 1, 1, 2]) + struct.pack("<2I", 2, 3)
    record += bytes([0b101]) + struct.pack("<3f", 0.5, 1.0, 2.0) + bytes([1, 1, 1, 1])
    body = b"DQAR" + struct.pack("<HHI", 1, 1, 16 + len(record)) + record
    assert encode([table]) == with_crc(body)


def test_padding_behind_the_buffer_is_ignored():
    tables = [make_table()]
    assert decode(encode(tables) + b"\0" * 7) == tables


def test_every_truncation_is_refused():
    data = encode([make_table()])
    for size in range(len(data)):
        with pytest.raises(MetadataError, match="DQA_RESIDUAL"):
            decode(data[:size])


def test_every_flipped_bit_is_refused():
    data = encode([make_table()])
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(MetadataError):
            decode(bytes(damaged))


def test_a_newer_version_says_to_upgrade():
    data = bytearray(encode([make_table()]))
    data[4] = 3
    with pytest.raises(MetadataError, match=r"version 3.*Upgrade"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(17, 0, "bits=0"), (17, 9, "bits=9"), (18, 5, "extra_bits=5"), (20, 0, "rank=0")],
)
def test_impossible_fields_are_refused_even_with_a_good_checksum(
    offset, value, message
):
    body = bytearray(encode([make_table(name="abc")])[:-4])
    body[offset] = value
    with pytest.raises(MetadataError, match=message):
        decode(with_crc(bytes(body)))


def test_incomplete_huffman_lengths_are_refused():
    body = bytearray(encode([make_table(name="abc")])[:-4])
    body[-1] = 12 if body[-1] != 12 else 11
    with pytest.raises(MetadataError, match=r"'abc'.*code space"):
        decode(with_crc(bytes(body)))


def test_a_zero_point_makes_version_2():
    plain, offset = make_table(seed=1), make_table(seed=3)
    assert (offset.zero_point, offset.sign) == (2, 3)
    assert encode([plain])[4] == 1
    both = encode([plain, dataclasses.replace(offset, name="silu")])
    assert both[4] == 2
    assert [table.signed for table in decode(both)] == [True, 2 / 16]
    body = bytearray(both[:-4])
    body[4] = 1
    with pytest.raises(MetadataError, match="sign=3"):
        decode(with_crc(bytes(body)))


def test_bytes_behind_the_last_record_are_refused():
    body = bytearray(encode([make_table()])[:-4]) + b"\0"
    body[8:12] = struct.pack("<I", len(body) + 4)
    with pytest.raises(MetadataError, match="behind its last table"):
        decode(with_crc(bytes(body)))


def test_two_layers_of_one_name_are_refused():
    with pytest.raises(MetadataError, match=r"names must be unique.*'relu' twice"):
        decode(encode([make_table(), make_table()]))


native = pytest.mark.skipif(
    not codec.runtime().startswith("native"), reason="the compiled codec is missing"
)


def read_native(data: bytes):
    """Tables as the C++ reader sees them, `None` where it refuses the buffer."""
    try:
        layers = codec._native.read_tables(data)
    except ValueError:
        return None
    return [
        LayerTable(
            name=name.decode(),
            bits=bits,
            extra_bits=extra_bits,
            signed=signed_of(sign, bits),
            shape=tuple(np.frombuffer(shape, np.uint32).tolist()),
            mask=np.frombuffer(mask, np.uint8).astype(bool),
            scale=np.frombuffer(scale, np.float32),
            residual_lengths=np.frombuffer(residual_lengths, np.uint8),
            base_lengths=np.frombuffer(base_lengths, np.uint8),
        )
        for (
            name,
            bits,
            extra_bits,
            sign,
            shape,
            mask,
            scale,
            residual_lengths,
            base_lengths,
        ) in layers
    ]


def read_python(data: bytes):
    try:
        return decode(data)
    except MetadataError:
        return None


widths = st.integers(1, 8).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, min(4, 8 - n)))
)


@st.composite
def layers(draw):
    names = draw(st.lists(st.text(max_size=8), max_size=3, unique=True))
    return [
        dataclasses.replace(
            make_table(name, *draw(widths), channels, draw(st.integers(0, 99))),
            shape=(*draw(st.lists(st.integers(0, 2**32 - 1), max_size=3)), channels),
        )
        for name in names
        for channels in [draw(st.integers(1, 20))]
    ]


@native
@given(layers(), st.integers(0, 15))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_the_native_reader_reads_the_same(tables, padding):
    data = encode(tables) + bytes(padding)
    assert read_native(data) == tables == decode(data)


@native
@given(layers(), st.data())
@settings(deadline=None, derandomize=True, max_examples=1000)
def test_both_readers_accept_or_both_refuse(tables, data):
    buffer = bytearray(encode(tables)[:-4])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(buffer) - 1))
        buffer[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # shortened, or drawn out
        buffer = buffer[: data.draw(st.integers(0, len(buffer)))]
        buffer += data.draw(st.binary(max_size=4))
        if len(buffer) >= 12:
            buffer[8:12] = struct.pack("<I", len(buffer) + 4)
    mutated = with_crc(bytes(buffer)) if data.draw(st.booleans()) else bytes(buffer)
    # The checksum fits where it can, so that most mutations reach the records.
    assert read_native(mutated) == read_python(mutated)


@native
@pytest.mark.parametrize("buffer", ["cases", "names"])
def test_golden_buffers_are_read_alike(buffer):
    data = (GOLDEN / f"{buffer}.bin").read_bytes()
    tables = decode(data)
    assert read_native(data) == tables
    assert encode(tables) == data[: len(encode(tables))]
