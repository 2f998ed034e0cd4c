"""Packs one tensor with the compiled codec, wherever it was compiled for.

    python codec.py CODEC

Prints the SHA-256 of all blobs, and the machine and instruction set on a second line.
Needs NumPy and the module's file, nothing else of dqa_keras.
"""

import hashlib
import importlib.util
import platform
import sys

import numpy as np


def main(path: str) -> None:
    spec = importlib.util.spec_from_file_location("_codec", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    codec = module.Codec(
        bits=4,
        extra_bits=2,
        sign=0,
        mask=(np.arange(24) % 3 == 0).astype(np.uint8),
        scale=np.full(24, 0.1, np.float32),
        residual_lengths=np.uint8([1, 2, 3, 3]),
        base_lengths=np.full(16, 4, np.uint8),
        isa=module.best_isa(),
    )
    values = np.random.default_rng(0).random(1000 * 24, np.float32) * 2
    digest = hashlib.sha256()
    for storage in range(3):
        out = np.zeros(2 * values.nbytes, np.uint8)
        blob = out[: codec.pack(values, storage, 100, 10, 2, out)]
        back = np.zeros_like(values)
        codec.unpack(blob, 100, 1, back)
        digest.update(blob.tobytes() + back.tobytes())
    print(digest.hexdigest())
    print(platform.machine(), codec.isa)


if __name__ == "__main__":
    main(sys.argv[1])
