"""What one interpreter adds to a fresh process; prints two numbers of bytes.

    python process_growth.py FILE THREADS [DELEGATE]

Anonymous memory (arenas, tables, repacked weights) and pages of mapped files (the model
and the code that runs it), from before the interpreter is made to after its second run.
Nothing of TensorFlow or Keras is loaded, as on a phone.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate


def resident() -> tuple[int, int]:
    """Bytes of this process in anonymous memory, and in pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = dict(line.split()[:2] for line in lines if line.startswith("Rss"))
    return 1024 * int(kib["RssAnon:"]), 1024 * int(kib["RssFile:"])


def growth(path: str, threads: int, delegate: str | None) -> tuple[int, int]:
    random = np.random.default_rng(0)
    resident()
    # What is free in the heap already would hide what the interpreter takes.
    ctypes.CDLL(None).malloc_trim(0)
    before = resident()
    delegates = [] if delegate is None else [load_delegate(delegate)]
    interpreter = Interpreter(
        path, num_threads=threads, experimental_delegates=delegates
    )
    interpreter.allocate_tensors()
    image = interpreter.tensor(interpreter.get_input_details()[0]["index"])()[0]
    # Row by row: a whole image would take memory of its own.
    for row in image:
        row[:] = random.integers(0, 100, row.shape)
    del image, row
    for _ in range(2):
        interpreter.invoke()
    after = resident()
    return after[0] - before[0], after[1] - before[1]


if __name__ == "__main__":
    print(*growth(sys.argv[1], int(sys.argv[2]), *sys.argv[3:] or [None]))
