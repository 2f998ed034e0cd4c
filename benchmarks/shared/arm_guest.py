"""Runs a model in LiteRT on the emulated machine, once more between two marks.

    python3.11 arm_guest.py MODEL [DELEGATE]

The marks are calls of getpgid(424242), which the counting plugin looks for. NumPy and
LiteRT are all that this needs.
"""

import ctypes
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate

MARK = 424242


def main(path: str, libraries: list[str]) -> None:
    """Prints a digest of the output, after the marks."""
    delegates = [load_delegate(library) for library in libraries]
    run = Interpreter(path, num_threads=1, experimental_delegates=delegates)
    run.allocate_tensors()
    detail = run.get_input_details()[0]
    values = np.random.default_rng(0).random(detail["shape"]) * 100
    run.set_tensor(detail["index"], values.astype(detail["dtype"]))
    getpgid = ctypes.CDLL(None).getpgid
    run.invoke()
    getpgid(MARK)
    run.invoke()
    getpgid(MARK)
    print(int(run.get_tensor(run.get_output_details()[0]["index"]).astype(int).sum()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
