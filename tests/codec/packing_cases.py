"""Tensors and tables for the tests of the codec."""

from pathlib import Path

import numpy as np

from dqa_keras.codec import huffman, sizes, symbols
from dqa_keras.codec.layer_table import LayerTable, signed_of

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = sorted(path.parent.name for path in FOLDER.glob("*/table.txt"))


def code_pairs():
    """Every n = 1..8 and m = 0..4 with n + m <= 8."""
    return [(n, m) for n in range(1, 9) for m in range(5) if n + m <= 8]


def golden(case):
    """Table, values, codes, rows of a strip, and blobs by storage class."""
    folder = FOLDER / case
    lines = (folder / "table.txt").read_text().splitlines()
    fields = {line.split()[0]: line.split()[1:] for line in lines}
    shape = tuple(map(int, fields["shape"]))
    table = LayerTable(
        name="golden",
        bits=int(fields["bits"][0]),
        extra_bits=int(fields["extra_bits"][0]),
        signed=signed_of(int(fields["signed"][0]), int(fields["bits"][0])),
        shape=shape[1:],
        mask=np.array(fields["mask"]) == "1",
        scale=np.array([int(word, 16) for word in fields["scale"]], np.uint32).view(
            np.float32
        ),
        residual_lengths=np.array(fields["residual_lengths"], np.uint8),
        base_lengths=np.array(fields["base_lengths"], np.uint8),
    )
    dtype = symbols.code_dtype(table)
    values = np.fromfile(folder / "values.bin", "<f4").reshape(shape)
    codes = np.fromfile(folder / "codes.bin", dtype).reshape(shape)
    blobs = {
        storage: (folder / f"{storage}.bin").read_bytes()
        for storage in sizes.STORAGE_CLASSES
    }
    return table, values, codes, int(fields["strip_rows"][0]), blobs


def random_lengths(rng, symbols):
    """Lengths of a random code, from even to as uneven as 12 bits allow."""
    steepness = rng.uniform(0, 3)
    counts = 1e6 * np.exp(-steepness * rng.permutation(symbols))
    return huffman.code_lengths(counts.astype(np.int64))


def kinds_of_codes(bits, extra_bits):
    """Unsigned, signed, and the smallest and largest zero point between."""
    zero_points = range(1, 2 ** (bits - 1)) if bits + extra_bits < 8 else range(0)
    ends = {*zero_points[:1], *zero_points[-1:]}
    return [False, True, *(z / 2**bits for z in sorted(ends))]


def random_table(rng, bits, extra_bits, signed, channels):
    """A table of unknown size, a random share of whose channels is important."""
    return LayerTable(
        name="random",
        bits=bits,
        extra_bits=extra_bits,
        signed=signed,
        shape=(0, 0, channels),
        mask=rng.random(channels) < rng.choice([0, 0.25, 0.5, 1]),
        scale=rng.uniform(1e-3, 10, channels).astype(np.float32),
        residual_lengths=random_lengths(rng, 2**extra_bits),
        base_lengths=random_lengths(rng, 2**bits),
    )


def random_codes(rng, table, shape):
    """Codes that are all smallest, all largest, uniform, or sparse."""
    low, high = symbols.code_limits(table)
    kind = rng.choice(["low", "high", "uniform", "sparse"])
    if kind == "low":
        codes = np.broadcast_to(low, shape)
    elif kind == "high":
        codes = np.broadcast_to(high, shape)
    else:
        codes = np.floor(low + rng.random(shape) * (high - low + 1))
        if kind == "sparse":
            codes = np.where(rng.random(shape) < 0.8, 0, codes)
    return codes.astype(symbols.code_dtype(table))


def random_values(rng, table, shape):
    """Values in and around the range, some of them not finite."""
    low, high = symbols.code_limits(table)
    q = rng.uniform(low - 2, high + 2, shape)
    q = np.where(rng.random(shape) < 0.3, np.floor(q) + 0.5, q)
    q = np.where(rng.random(shape) < 0.3, 0, q)
    values = (q * table.scale).astype(np.float32)
    strange = rng.random(shape) < 0.02
    values[strange] = rng.choice(np.float32([np.nan, np.inf, -np.inf]), strange.sum())
    return values
