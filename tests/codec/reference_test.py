import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_cases import (
    GOLDEN,
    code_pairs,
    golden,
    kinds_of_codes,
    random_codes,
    random_table,
)

from dqa_keras.codec import blocks, huffman, reference, sizes, symbols

ENTROPY_SHAPE = (1, 64, 64, 64)


def counted_size(codes, table, storage, strip_rows):
    """Bytes of a blob by what `blocks` says of its sections, without writing them."""
    values, rows, strip_rows = sizes.check_geometry(
        table, codes.shape, storage, strip_rows
    )
    rows_of_codes = codes.reshape(rows, values)
    total = sizes.HEADER.size
    for first in range(0, rows, strip_rows):
        strip = rows_of_codes[first : first + strip_rows]
        base, residual = symbols.split_symbols(strip, table)
        total += 4  # the strip's place in the directory
        if storage == "all":
            total += blocks.blocks_size(base, table.bits, table.base_lengths)
        else:
            total += blocks.plane_size(base.size, table.bits)
        if storage == "raw":
            total += blocks.plane_size(residual.size, table.extra_bits)
        else:
            lengths = table.residual_lengths
            total += blocks.blocks_size(residual, table.extra_bits, lengths)
    return total


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_vectors(case):
    table, values, codes, strip_rows, blobs = golden(case)
    np.testing.assert_array_equal(symbols.quantize(values, table), codes)
    for storage, blob in blobs.items():
        assert counted_size(codes, table, storage, strip_rows) == len(blob)
        assert reference.pack(values, table, storage, strip_rows) == blob
        assert reference.pack(codes, table, storage, strip_rows) == blob
        unpacked = reference.unpack(blob, table, values.shape, codes.dtype)
        np.testing.assert_array_equal(unpacked, codes)
        np.testing.assert_array_equal(
            reference.unpack(blob, table, values.shape),
            codes.astype(np.float32) * table.scale,
        )


@pytest.mark.parametrize(("bits", "extra_bits"), code_pairs())
@pytest.mark.parametrize("kind", range(4))
def test_round_trip_at_every_width(bits, extra_bits, kind):
    signed = kinds_of_codes(bits, extra_bits)[kind:][:1]
    rng = np.random.default_rng([bits, extra_bits, kind])
    for channels in (1, 3, 8, 17) if signed else ():
        table = random_table(rng, bits, extra_bits, signed[0], channels)
        shape = (1, int(rng.integers(1, 6)), int(rng.integers(1, 30)), channels)
        codes = random_codes(rng, table, shape)
        for storage in sizes.STORAGE_CLASSES:
            strip_rows = int(rng.integers(1, shape[1] + 1))
            blob = reference.pack(codes, table, storage, strip_rows)
            assert len(blob) <= sizes.blob_bound(table, shape, storage, strip_rows)
            assert len(blob) == counted_size(codes, table, storage, strip_rows)
            np.testing.assert_array_equal(
                reference.unpack(blob, table, shape, codes.dtype), codes
            )


def test_raw_size_is_its_bound():
    rng = np.random.default_rng(0)
    table = random_table(rng, 5, 3, False, 7)
    codes = random_codes(rng, table, (2, 5, 3, 7))
    assert len(reference.pack(codes, table, "raw", 4)) == sizes.blob_bound(
        table, codes.shape, "raw", 4
    )


def test_a_strip_of_a_blob_is_a_strip_alone():
    table, _, codes, strip_rows, blobs = golden("odd")
    rows = codes.reshape(-1, *codes.shape[2:])
    for storage, blob in blobs.items():
        header = reference.read_header(blob)
        ends = zip(header.offsets[:-1], header.offsets[1:], strict=True)
        for index, (begin, end) in enumerate(ends):
            part = rows[index * strip_rows :][: header.rows_of(index)]
            assert reference.pack_strip(part, table, storage) == blob[begin:end]
            np.testing.assert_array_equal(
                reference.unpack_strip(
                    blob[begin:end], table, part.shape, storage, codes.dtype
                ),
                part,
            )


def test_unknown_sizes_come_from_the_shape():
    table, values, _, strip_rows, blobs = golden("typical")
    open_table = dataclasses.replace(table, shape=(0, 0, values.shape[-1]))
    assert reference.pack(values, open_table, "all", strip_rows) == blobs["all"]


def test_size_is_near_the_huffman_optimum_and_the_entropy():
    rng = np.random.default_rng(1)
    table, codes = sparse_tensor(rng, ENTROPY_SHAPE)
    base, residual = symbols.split_symbols(codes, table)
    base_counts, residual_counts = np.bincount(base), np.bincount(residual)
    optimum = float(residual_counts @ table.residual_lengths)
    stored = 8 * blocks.blocks_size(residual, 2, table.residual_lengths)
    assert stored <= 1.01 * optimum
    whole = 8 * len(reference.pack(codes, table, "residual"))
    assert whole <= 1.01 * (4 * base.size + optimum)
    entropy = bits_of(base_counts) + bits_of(residual_counts)
    assert 8 * len(reference.pack(codes, table, "all")) <= 1.03 * entropy


def bits_of(counts):
    present = counts[counts > 0]
    return float(-(present * np.log2(present / counts.sum())).sum())


def sparse_tensor(rng, shape):
    channels = shape[-1]
    mask = np.arange(channels) % 4 == 0
    table = dataclasses.replace(
        random_table(rng, 4, 2, False, channels),
        mask=mask,
        scale=(3.2 / np.where(mask, 63, 15)).astype(np.float32),
        shape=shape[1:],
    )
    values = np.maximum(rng.normal(size=shape), 0).astype(np.float32)
    codes = symbols.quantize(values, table)
    base, residual = symbols.split_symbols(codes, table)
    table = dataclasses.replace(
        table,
        base_lengths=huffman.code_lengths(np.bincount(base, minlength=16)),
        residual_lengths=huffman.code_lengths(np.bincount(residual, minlength=4)),
    )
    return table, codes


def test_a_block_that_would_grow_stays_raw():
    lengths = huffman.code_lengths(np.array([1000, 100, 10, 1]))
    worst = np.full(3 * blocks.BLOCK_SYMBOLS + 5, 3, np.uint8)
    section = blocks.write_blocks(worst, 2, lengths)
    assert len(section) == blocks.blocks_bound(worst.size, 2)
    assert len(section) == blocks.plane_size(worst.size, 2) + 8
    streams, _ = blocks.scan_blocks(section, 0, worst.size, 2)
    assert not any(stream.coded for stream in streams)


def test_special_values():
    table, values, codes, _, _ = golden("special")
    low, high = symbols.code_limits(table)
    assert np.all(
        codes[np.isnan(values)] == np.broadcast_to(low, codes.shape)[np.isnan(values)]
    )
    infinite = values == np.inf
    assert np.all(codes[infinite] == np.broadcast_to(high, codes.shape)[infinite])
    assert set(codes[values == 0.5]) == {0}
    assert set(codes[values == 1.5]) == {2}


def damage(blob, offset, value):
    data = bytearray(blob)
    data[offset] = value
    return bytes(data)


REFUSALS = {
    "truncated header": (lambda blob: blob[:15], "at least 16 bytes"),
    "truncated directory": (lambda blob: blob[:20], "blob is truncated"),
    "truncated strip": (lambda blob: blob[:-1], "truncated"),
    "oversized": (lambda blob: blob + b"\0", "oversized"),
    "magic": (lambda blob: damage(blob, 0, 0), "must start with"),
    "version": (lambda blob: damage(blob, 4, 2), "version must be 1"),
    "class": (lambda blob: damage(blob, 5, 3), "storage class must be"),
    "reserved": (lambda blob: damage(blob, 6, 1), "reserved"),
    "no rows": (lambda blob: damage(blob, 8, 0), "1 <= strip_rows <= rows"),
    "other rows": (lambda blob: damage(blob, 12, 6), "rise|truncated|must"),
    "directory falls": (lambda blob: damage(blob, 21, 0), "must rise"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("storage", sizes.STORAGE_CLASSES)
def test_refuses_a_damaged_blob(name, storage):
    harm, message = REFUSALS[name]
    table, values, _, _, blobs = golden("typical")
    with pytest.raises(ValueError, match=message):
        reference.unpack(harm(blobs[storage]), table, values.shape)


def test_refuses_a_blob_of_another_height():
    table, values, _, _, blobs = golden("odd")
    with pytest.raises(ValueError, match="has 5 rows"):
        reference.unpack(blobs["raw"], table, values[:1].shape)


BAD_LENGTHS = {
    "over-subscribed": [1, 1, 2, 2],
    "incomplete": [2, 2, 3, 3],
    "1..12": [1, 2, 13, 13],
    "1..12 ": [0, 1, 2, 2],
}


@pytest.mark.parametrize("name", BAD_LENGTHS)
def test_refuses_a_bad_huffman_code(name):
    table, *_ = golden("typical")
    with pytest.raises(ValueError, match=name.strip()):
        dataclasses.replace(table, residual_lengths=np.uint8(BAD_LENGTHS[name]))


def test_refuses_damaged_blocks():
    lengths = huffman.code_lengths(np.array([1000, 100, 10, 1]))
    symbols = np.zeros(1000, np.uint8)
    section = blocks.write_blocks(symbols, 2, lengths)

    def read(data):
        streams, _ = blocks.scan_blocks(data, 0, symbols.size, 2)
        return blocks.decode_streams(data, streams, symbols.size, 2, lengths)

    assert np.array_equal(read(section), symbols)
    with pytest.raises(ValueError, match="sizes of its streams"):
        read(section[:1])
    with pytest.raises(ValueError, match="end inside its strip"):
        read(section[:-1])
    with pytest.raises(ValueError, match="streams of at least 1 byte"):
        read(damage(section, 2, 0))
    with pytest.raises(ValueError, match="smaller than its raw form"):
        read(damage(section, 1, 1))
    with pytest.raises(ValueError, match="must end in its last byte"):
        read(damage(section, 20, 0xFF))
    with pytest.raises(ValueError, match="end inside its strip"):
        read(bytes(2) + bytes(10))


@pytest.mark.parametrize("storage", sizes.STORAGE_CLASSES)
def test_refuses_a_strip_of_another_size(storage):
    table, _, codes, _, _ = golden("typical")
    strip = reference.pack_strip(codes, table, storage)
    for wrong, state in (
        (strip[:-1], "truncated|inside"),
        (strip + b"\0", "oversized"),
    ):
        with pytest.raises(ValueError, match=state):
            reference.unpack_strip(wrong, table, codes.shape, storage)


BAD_CALLS = {
    "storage": lambda t, x: reference.pack(x, t, "best"),
    "strip_rows must be": lambda t, x: reference.pack(x, t, "raw", 7),
    "shape must be": lambda t, x: reference.pack(x[..., :3], t),
    "no empty axis": lambda t, x: reference.pack(x[:0], t),
    "dtype must be": lambda t, x: reference.pack(x.astype(np.float64), t),
    "shape must end in": lambda t, x: reference.pack_strip(x[..., :3], t, "raw"),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_refuses_a_bad_call(message):
    table, values, *_ = golden("typical")
    with pytest.raises(ValueError, match=message):
        BAD_CALLS[message](table, values)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_hostile_bytes_give_one_kind_of_error(data):
    table, values, _, _, blobs = golden(data.draw(st.sampled_from(GOLDEN)))
    blob = bytearray(blobs[data.draw(st.sampled_from(sizes.STORAGE_CLASSES))])
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    mutated = bytes(blob[: cut or None])
    # Anything but a result or a ValueError fails the test.
    with contextlib.suppress(ValueError):
        reference.unpack(mutated, table, values.shape)


def test_golden_vectors_are_what_the_script_writes(tmp_path, monkeypatch):
    from golden import generate

    monkeypatch.setattr(generate, "HERE", tmp_path)
    generate.main()
    here = Path(__file__).parents[1] / "golden"
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert written == sorted(
        path.relative_to(here)
        for path in here.rglob("*/*.*")
        if "__pycache__" not in path.parts
    )
    for path in written:
        assert (tmp_path / path).read_bytes() == (here / path).read_bytes(), path
