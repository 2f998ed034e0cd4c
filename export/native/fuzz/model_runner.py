"""Runs the files that model_fuzz.py sends, in LiteRT with the sanitized delegate.

python model_runner.py LIBRARY

Standard input: for each file its size as a u32, a byte for the number of threads, and
the file. Standard output: a byte for each, what became of it. Imports nothing of
dqa_keras: little besides LiteRT shall run under the sanitizers.
"""

import struct
import sys
from typing import BinaryIO

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate


def outcome(library: str, file: bytes, threads: int) -> bytes:
    """`b"r"` if the file ran, `b"e"` if it was refused with an error."""
    try:
        interpreter = Interpreter(
            model_content=file,
            experimental_delegates=[load_delegate(library)],
            num_threads=threads,
        )
        interpreter.allocate_tensors()
        random = np.random.default_rng(0)
        for tensor in interpreter.get_input_details():
            values = random.uniform(0, 255, tensor["shape"]).astype(tensor["dtype"])
            interpreter.set_tensor(tensor["index"], values)
        interpreter.invoke()
    except (RuntimeError, ValueError, TypeError, MemoryError):
        return b"e"
    return b"r"


def main(library: str, source: BinaryIO, answers: BinaryIO) -> None:
    """Answers until the input ends."""
    answers.write(b"!")
    answers.flush()
    while head := source.read(5):
        size, threads = struct.unpack("<IB", head)
        answers.write(outcome(library, source.read(size), threads))
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
