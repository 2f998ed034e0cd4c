"""Writes the golden vectors that every codec reproduces to the byte.

    python tests/golden/generate.py

Each folder holds one tensor: `table.txt` (a field a line; floats as their bit pattern),
`values.bin` (float32), `codes.bin` (a byte each), and one blob for each storage class.
`metadata/` holds `DQA_RESIDUAL` buffers: `cases.bin` has the table of every case, under
the case's name, but that of `tail`, which needs version 2 and is in `tail.bin`;
`names.bin` has names that are hard to read.
The bytes are the format: if this script changes one, FORMAT.md's version changes too.
"""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.codec import huffman, reference, sizes, symbols
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.export.litert import residual_table

HERE = Path(__file__).parent


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What a ReLU leaves: half zeros, the rest half-Gaussian."""
    return np.maximum(rng.normal(size=shape), 0).astype(np.float32)


def special(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Infinities, NaN, negative zero, subnormals and values halfway between codes."""
    pool = np.float32(
        [
            np.inf,
            -np.inf,
            np.nan,
            -0.0,
            1e-40,
            3.4e38,
            -3.4e38,
            0.5,
            1.5,
            2.5,
            -0.5,
            -1.5,
        ]
    )
    return rng.choice(pool, size=shape)


def make_table(
    bits: int,
    extra_bits: int,
    signed: quantizers.Signed,
    mask: NDArray[np.bool_],
    values: NDArray[np.float32],
    scale: NDArray[np.float32],
    strange: bool = False,
) -> LayerTable:
    """A table with the code lengths of these values, or of quite different ones."""
    table = LayerTable(
        name="golden",
        bits=bits,
        extra_bits=extra_bits,
        signed=signed,
        shape=values.shape[1:],
        mask=mask,
        scale=scale,
        residual_lengths=np.full(2**extra_bits, extra_bits, np.uint8),
        base_lengths=np.full(2**bits, bits, np.uint8),
    )
    codes = symbols.quantize(values, table)
    base, residual = symbols.split_symbols(codes, table)
    base_counts = np.bincount(base, minlength=2**bits)
    residual_counts = np.bincount(residual, minlength=2**extra_bits)
    if strange:
        base_counts, residual_counts = base_counts[::-1], residual_counts[::-1]
    return dataclasses.replace(
        table,
        base_lengths=huffman.code_lengths(base_counts),
        residual_lengths=huffman.code_lengths(residual_counts),
    )


def write(
    folder: Path, table: LayerTable, values: NDArray[np.float32], strip_rows: int
):
    """Writes one case."""
    folder.mkdir(exist_ok=True)
    fields = {
        "bits": [table.bits],
        "extra_bits": [table.extra_bits],
        "signed": [table.sign],
        "shape": list(values.shape),
        "strip_rows": [strip_rows],
        "mask": table.mask.astype(int).tolist(),
        "scale": [f"{pattern:08x}" for pattern in table.scale.view(np.uint32)],
        "residual_lengths": table.residual_lengths.tolist(),
        "base_lengths": table.base_lengths.tolist(),
    }
    lines = [f"{name} {' '.join(map(str, field))}\n" for name, field in fields.items()]
    (folder / "table.txt").write_text("".join(lines))
    (folder / "values.bin").write_bytes(values.astype("<f4").tobytes())
    codes = symbols.quantize(values, table)
    (folder / "codes.bin").write_bytes(codes.tobytes())
    for storage in sizes.STORAGE_CLASSES:
        blob = reference.pack(values, table, storage, strip_rows)
        (folder / f"{storage}.bin").write_bytes(blob)


def write_metadata(folder: Path, cases: list[LayerTable]):
    """Writes the buffers of layer tables."""
    folder.mkdir(exist_ok=True)
    (folder / "cases.bin").write_bytes(residual_table.encode(cases))
    names = ["", "block/relu", "zweite Schicht ä", "激活", "🧪", "a\0b"]
    tables = [
        LayerTable(
            name=name,
            bits=2,
            extra_bits=1,
            signed=False,
            shape=(0,) * (channels - 1) + (channels,),
            mask=np.arange(channels) % 2 == 0,
            scale=np.full(channels, 0.5, np.float32),
            residual_lengths=np.uint8([1, 1]),
            base_lengths=np.uint8([1, 2, 3, 3]),
        )
        for channels, name in enumerate(names, 1)
    ]
    data = residual_table.encode(tables)
    (folder / "names.bin").write_bytes(data + bytes(-len(data) % 16))


def main() -> None:
    """Writes every case."""
    rng = np.random.default_rng(0)
    tables: list[LayerTable] = []
    # name: bits, extra bits, signed, shape, rows a strip, kind of data
    cases = {
        "typical": (4, 2, False, (1, 6, 10, 16), 2, "sparse"),
        "odd": (3, 3, True, (2, 5, 7, 5), 3, "normal"),
        "one_channel": (5, 1, False, (1, 3, 3, 1), 1, "sparse"),
        "one_bit": (1, 4, False, (1, 4, 9, 11), 4, "sparse"),
        "eight_bits": (8, 0, True, (1, 4, 5, 6), 4, "normal"),
        "seven_bits": (7, 1, False, (1, 3, 5, 13), 2, "sparse"),
        "vector": (4, 4, False, (3, 29), 1, "sparse"),
        "zeros": (4, 2, False, (1, 4, 8, 8), 4, "zeros"),
        "saturated": (6, 2, True, (1, 4, 8, 8), 4, "saturated"),
        "special": (4, 2, True, (1, 4, 8, 9), 4, "special"),
        "fallback": (2, 3, False, (1, 6, 10, 12), 6, "strange"),
        "blocks": (4, 2, False, (1, 40, 12, 40), 40, "sparse"),
    }
    for name, (bits, extra_bits, signed, shape, strip_rows, kind) in cases.items():
        channels = shape[-1]
        mask = np.zeros(channels, bool)
        share = 1.0 if name == "blocks" else 0.4
        mask[rng.permutation(channels)[: max(1, round(share * channels))]] = True
        levels = np.where(mask & (extra_bits > 0), 2 ** (bits + extra_bits), 2**bits)
        reach = rng.uniform(2, 4, channels) * (2 if signed else 1)
        scale = (reach / levels).astype(np.float32)
        values = {
            "sparse": lambda shape=shape: sparse(rng, shape),
            "normal": lambda shape=shape: rng.normal(size=shape).astype(np.float32),
            "zeros": lambda shape=shape: np.zeros(shape, np.float32),
            "saturated": lambda shape=shape: np.full(shape, -1e30, np.float32),
            "special": lambda shape=shape: special(rng, shape),
            "strange": lambda shape=shape: sparse(rng, shape),
        }[kind]()
        if kind == "special":
            scale[:] = 1.0
        table = make_table(
            bits, extra_bits, signed, mask, values, scale, kind == "strange"
        )
        write(HERE / name, table, values, strip_rows)
        tables.append(dataclasses.replace(table, name=name))
    write_metadata(HERE / "metadata", tables)
    # A short negative tail: three of sixteen base codes lie below 0.
    values = rng.normal(size=(1, 5, 6, 24)).astype(np.float32)
    values = np.maximum(values, 0.2 * values)
    mask = np.arange(24) % 3 == 0
    scale = np.where(mask, 0.05, 0.2).astype(np.float32)
    tail = make_table(4, 2, 3 / 16, mask, values, scale)
    write(HERE / "tail", tail, values, 2)
    named = residual_table.encode([dataclasses.replace(tail, name="tail")])
    (HERE / "metadata" / "tail.bin").write_bytes(named)


if __name__ == "__main__":
    main()
