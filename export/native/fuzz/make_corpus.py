"""Writes the fuzzer's seeds from the golden vectors: make_corpus.py GOLDEN OUT."""

import struct
import sys
from pathlib import Path

MODES = {"blob": 0, "threads": 1, "raw": 2, "residual": 3, "all": 4, "pack": 5}
METADATA = bytes([0] * 7 + [6])
HEADER = 16
# Larger seeds slow every run and reach no other line.
MAX_ARRAYS, MAX_VALUES = 400, 2000


def main(golden: Path, out: Path) -> None:
    """One seed for each blob, its first strip, its codes to pack, and each buffer."""
    out.mkdir(parents=True, exist_ok=True)
    for path in golden.glob("metadata/*.bin"):
        (out / f"metadata_{path.stem}").write_bytes(METADATA + path.read_bytes())
    for folder in sorted(path.parent for path in golden.glob("*/table.txt")):
        lines = (folder / "table.txt").read_text().splitlines()
        fields = {line.split()[0]: line.split()[1:] for line in lines}
        shape = [int(size) for size in fields["shape"]]
        rows = shape[0] * (shape[1] if len(shape) > 2 else 1)
        pixels = 1
        for size in shape[2:-1]:
            pixels *= size
        strip_rows = int(fields["strip_rows"][0])
        arrays = bytes(map(int, fields["mask"]))
        arrays += b"".join(struct.pack("<I", int(s, 16)) for s in fields["scale"])
        arrays += bytes(map(int, fields["residual_lengths"]))
        arrays += bytes(map(int, fields["base_lengths"]))

        def seed(
            mode: str,
            height: int,
            payload: bytes,
            fields: dict[str, list[str]] = fields,
            numbers: tuple[int, int, int] = (shape[-1], pixels, strip_rows),
            arrays: bytes = arrays,
        ) -> bytes:
            channels, width, strip = numbers
            scalars = (int(fields[n][0]) for n in ("bits", "extra_bits", "signed"))
            head = (*scalars, channels, height, width, strip, MODES[mode])
            return bytes(head) + arrays + payload

        name = folder.name
        if len(arrays) > MAX_ARRAYS or rows * pixels * shape[-1] > MAX_VALUES:
            continue
        codes = (folder / "codes.bin").read_bytes()
        (out / f"{name}_pack").write_bytes(seed("pack", rows, codes))
        for storage in ("raw", "residual", "all"):
            blob = (folder / f"{storage}.bin").read_bytes()
            strips = -(-rows // strip_rows)
            begin = HEADER + 4 * strips
            end = begin + int.from_bytes(blob[HEADER : HEADER + 4], "little")
            for mode in ("blob", "threads"):
                (out / f"{name}_{storage}_{mode}").write_bytes(seed(mode, rows, blob))
            strip = blob[begin:end]
            (out / f"{name}_{storage}_strip").write_bytes(
                seed(storage, strip_rows, strip)
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
