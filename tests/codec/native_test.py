import builtins
import dataclasses
import importlib

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
    random_values,
)

from dqa_keras.codec import huffman, reference, sizes, symbols
from dqa_keras.codec import native as codec

BEST = codec.runtime().partition(", ")[2].partition(":")[0]
NATIVE = codec.runtime().startswith("native")
RUNTIMES = ["numpy", *(["scalar"] if NATIVE else []), *({"avx2", "neon"} & {BEST})]
COMPILED = RUNTIMES[1:]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", GOLDEN)
def test_golden_vectors(runtime, case):
    table, values, codes, strip_rows, blobs = golden(case)
    fast = codec.Codec(table, runtime)
    assert fast.runtime == runtime
    for storage, blob in blobs.items():
        for threads in (1, 3):
            for x in (values, codes):
                packed = fast.pack(x, storage, strip_rows, threads)
                assert packed.tobytes() == blob
            np.testing.assert_array_equal(
                fast.unpack(blob, codes.shape, codes.dtype, threads), codes
            )
            np.testing.assert_array_equal(
                fast.unpack(blob, codes.shape, threads=threads),
                reference.unpack(blob, table, codes.shape),
            )


@pytest.mark.parametrize("runtime", COMPILED)
@pytest.mark.parametrize(("bits", "extra_bits"), code_pairs())
def test_compiled_codec_is_the_reference_to_the_bit(runtime, bits, extra_bits):
    rng = np.random.default_rng([bits, extra_bits])
    every = [1, 2, 3, 5, 7, 8, 9, 16, 31, 32, 33, 63, 64, 65, 127, 200, 255, 256, 257]
    for channels in every:
        kinds = kinds_of_codes(bits, extra_bits)
        signed = kinds[rng.integers(len(kinds))]
        table = random_table(rng, bits, extra_bits, signed, channels)
        shape = (1, int(rng.integers(1, 4)), int(rng.integers(1, 12)), channels)
        fast = codec.Codec(table, runtime)
        values = random_values(rng, table, shape)
        codes = random_codes(rng, table, shape)
        for x in (values, codes):
            for storage in sizes.STORAGE_CLASSES:
                blob = reference.pack(x, table, storage, 2 if shape[1] > 1 else 1)
                packed = fast.pack(x, storage, 2 if shape[1] > 1 else 1)
                assert packed.tobytes() == blob
                np.testing.assert_array_equal(
                    fast.unpack(blob, shape, x.dtype),
                    reference.unpack(blob, table, shape, x.dtype),
                )


@pytest.mark.parametrize("runtime", COMPILED)
def test_every_number_of_channels(runtime):
    rng = np.random.default_rng(7)
    for channels in range(1, 258):
        table = random_table(rng, 4, 2, bool(channels % 2), channels)
        values = random_values(rng, table, (3, channels))
        codes = symbols.quantize(values, table)
        fast = codec.Codec(table, runtime)
        for storage in sizes.STORAGE_CLASSES:
            strip = reference.pack_strip(values, table, storage)
            assert fast.pack_strip(values, storage).tobytes() == strip
            assert fast.pack_strip(codes, storage).tobytes() == strip
            np.testing.assert_array_equal(
                fast.unpack_strip(strip, codes.shape, storage, codes.dtype), codes
            )


@pytest.mark.parametrize("runtime", COMPILED)
@pytest.mark.parametrize("kind", ["sparse", "uniform", "worst"])
def test_several_blocks_a_strip(runtime, kind):
    rng = np.random.default_rng(3)
    for bits, extra_bits in code_pairs():
        table = random_table(rng, bits, extra_bits, False, 12)
        _, high = symbols.code_limits(table)
        shape = (1, 3, 1900, 12)  # 68,400 values: five blocks, the last one short
        if kind == "sparse":
            codes = rng.geometric(0.6, shape) - 1
        elif kind == "uniform":
            codes = rng.integers(0, 256, shape)
        else:  # nothing but the longest codewords
            codes = np.argmax(table.base_lengths) << extra_bits * table.mask
            codes = np.broadcast_to(codes, shape)
        codes = np.minimum(codes, high).astype(np.uint8)
        fast = codec.Codec(table, runtime)
        for storage in sizes.STORAGE_CLASSES:
            blob = reference.pack(codes, table, storage, 3)
            assert fast.pack(codes, storage, 3).tobytes() == blob
            np.testing.assert_array_equal(fast.unpack(blob, shape, np.uint8), codes)


@pytest.mark.parametrize("runtime", COMPILED)
@pytest.mark.parametrize("extra_bits", [2, 3, 4])
def test_every_length_of_a_block(runtime, extra_bits):
    rng = np.random.default_rng(extra_bits)
    table = dataclasses.replace(
        random_table(rng, 2, extra_bits, False, 1),
        mask=np.array([True]),
        base_lengths=np.uint8([1, 2, 3, 3]),
        residual_lengths=huffman.code_lengths(4 ** np.arange(2**extra_bits)[::-1]),
    )
    fast = codec.Codec(table, runtime)
    for count in range(240, 600):
        base = np.minimum(rng.geometric(0.7, (count, 1)) - 1, 3)
        residual = np.minimum(rng.geometric(0.7, (count, 1)) - 1, 2**extra_bits - 1)
        codes = (base << extra_bits | residual).astype(np.uint8)
        strip = reference.pack_strip(codes, table, "all")
        assert fast.pack_strip(codes, "all").tobytes() == strip
        back = fast.unpack_strip(strip, codes.shape, "all", np.uint8)
        np.testing.assert_array_equal(back, codes)


@pytest.mark.parametrize("runtime", COMPILED)
def test_half_way_values_round_to_even(runtime):
    rng = np.random.default_rng(5)
    table = random_table(rng, 4, 4, True, 9)
    steps = np.arange(-300, 300, dtype=np.float32) / 2
    values = (steps[:, None] * table.scale).astype(np.float32)
    values = np.concatenate(
        [values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf)]
    )
    fast = codec.Codec(table, runtime)
    assert fast.pack_strip(values, "raw").tobytes() == reference.pack_strip(
        values, table, "raw"
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_writes_into_the_arrays_given(runtime):
    table, values, _, strip_rows, blobs = golden("odd")
    fast = codec.Codec(table, runtime)
    room = np.zeros(1000, np.uint8)
    blob = fast.pack(values, "all", strip_rows, out=room)
    assert np.shares_memory(blob, room)
    out = np.empty(values.shape, np.float32)
    assert fast.unpack(blob, values.shape, out=out) is out
    np.testing.assert_array_equal(out, reference.unpack(blobs["all"], table, out.shape))
    strip = fast.pack_strip(values[0], "raw", out=room)
    assert np.shares_memory(strip, room)
    assert fast.unpack_strip(strip, values[0].shape, "raw", out=out[0]) is not None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_takes_arrays_that_are_not_contiguous(runtime):
    table, values, _, strip_rows, blobs = golden("typical")
    fast = codec.Codec(table, runtime)
    spread = np.repeat(values, 2, axis=2)[:, :, ::2]
    assert fast.pack(spread, "all", strip_rows).tobytes() == blobs["all"]


BAD_CALLS = {
    "storage": lambda f, x: f.pack(x, "best"),
    "strip_rows must": lambda f, x: f.pack(x, "raw", 0),
    "threads must": lambda f, x: f.pack(x, "raw", threads=0),
    "shape must be": lambda f, x: f.pack(x[0]),
    "dtype must": lambda f, x: f.pack(x.astype(np.int32)),
    "at least": lambda f, x: f.pack(x, out=np.zeros(3, np.uint8)),
    "out must be contiguous": lambda f, x: f.unpack(
        f.pack(x), x.shape, out=np.zeros(x.shape[1:], np.float32)
    ),
    "dtype must be": lambda f, x: f.unpack(f.pack(x), x.shape, np.int16),
    "shape must end": lambda f, x: f.pack_strip(x[..., :2], "raw"),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("message", BAD_CALLS)
def test_refuses_a_bad_call(runtime, message):
    table, values, *_ = golden("typical")
    with pytest.raises(ValueError, match=message):
        BAD_CALLS[message](codec.Codec(table, runtime), values)


def test_refuses_an_instruction_set_that_is_not_here():
    table, *_ = golden("typical")
    absent = "neon" if BEST != "neon" else "avx2"
    with pytest.raises(ValueError, match=r"isa|runtime must"):
        codec.Codec(table, absent)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_reference_and_compiled_codec_refuse_the_same_bytes(data):
    table, values, _, _, blobs = golden(data.draw(st.sampled_from(GOLDEN)))
    blob = bytearray(blobs[data.draw(st.sampled_from(sizes.STORAGE_CLASSES))])
    for _ in range(data.draw(st.integers(0, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(
            st.integers(0, 7)
        )
    blob = bytes(blob[: data.draw(st.integers(1, len(blob)))])
    results = []
    for runtime in RUNTIMES:
        try:
            results.append(codec.Codec(table, runtime).unpack(blob, values.shape))
        except ValueError:
            results.append(None)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_numpy_takes_over_without_the_compiled_codec(monkeypatch):
    real = builtins.__import__

    def refuse(name, globals_=None, locals_=None, fromlist=(), level=0):
        if name == "dqa_keras.codec" and "_codec" in (fromlist or ()):
            raise ImportError("no module named dqa_keras.codec._codec")
        return real(name, globals_, locals_, fromlist, level)

    table, values, _, strip_rows, blobs = golden("typical")
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", refuse)
        importlib.reload(codec)
        assert codec.runtime().startswith("numpy: the compiled codec is not installed")
        plain = codec.Codec(table)
        assert plain.runtime == "numpy"
        assert plain.pack(values, "all", strip_rows).tobytes() == blobs["all"]
        with pytest.raises(ValueError, match="without the compiled codec"):
            codec.Codec(table, "avx2")
    importlib.reload(codec)
