"""Runs packed files in whatever interpreter is installed, with and without XNNPACK.

    python run.py LIBRARY FOLDER ai|tensorflow

Prints the interpreter's version and the SHA-256 of all output bytes, of each kind.
Needs NumPy and the interpreter, nothing of dqa_keras.
"""

import hashlib
import importlib
import importlib.metadata
import sys
from pathlib import Path

import numpy as np


def main(library: str, folder: Path, which: str) -> None:
    if which == "tensorflow":
        tensorflow = importlib.import_module("tensorflow")
        module, version = tensorflow.lite, tensorflow.__version__
        load = module.experimental.load_delegate
        resolvers = module.experimental.OpResolverType
    else:
        module = importlib.import_module("ai_edge_litert.interpreter")
        version = importlib.metadata.version("ai-edge-litert")
        load, resolvers = module.load_delegate, module.OpResolverType
    for name, resolver in (
        ("with XNNPACK", resolvers.AUTO),
        ("without", resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES),
    ):
        digest = hashlib.sha256()
        for path in sorted(folder.glob("*.tflite")):
            interpreter = module.Interpreter(
                str(path),
                experimental_delegates=[load(library)],
                experimental_op_resolver_type=resolver,
            )
            interpreter.allocate_tensors()
            index = interpreter.get_input_details()[0]["index"]
            interpreter.set_tensor(index, np.load(path.with_suffix(".npy")))
            interpreter.invoke()
            index = interpreter.get_output_details()[0]["index"]
            digest.update(interpreter.get_tensor(index).tobytes())
        print(f"{digest.hexdigest()}  {which} {version} {name}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
