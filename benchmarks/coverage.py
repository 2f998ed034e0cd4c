"""Which share of a network's multiply-accumulates runs on packed activations.

    python benchmarks/coverage.py --json benchmarks/results/coverage.json

Models of keras.applications with random weights at 96x96, 4 bits and 2 extra bits,
calibrated on two random images. Of each op of the built-in export that multiplies,
counts outputs times what each sums over, and which of them regions hold. Every model
runs in a process of its own. Rows of other models in the JSON file are kept; a table is
written beside it. Exits with 1 if MobileNetV2 or ResNet50 is below 95 %.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NAMES = (
    "MobileNetV2", "ResNet50", "EfficientNetV2B0", "DenseNet121", "MobileNetV3Small",
    "MobileNetV3Large", "EfficientNetB0", "MobileNet", "Xception", "InceptionV3",
    "NASNetMobile", "ResNet50V2", "VGG16", "ConvNeXtTiny",
)  # fmt: skip
_SIZE = 96
_LEAST = {"MobileNetV2": 0.95, "ResNet50": 0.95}


def products(data: bytes) -> int:
    """Multiply-accumulates of the ops of a `.tflite`, those of regions apart."""
    import numpy as np

    from dqa_keras.export.litert import flatbuffer

    model = flatbuffer.parse(data)
    graph = flatbuffer.Graph(model)
    tensors = model.subgraphs[0].tensors
    total = 0
    for op in graph.ops:
        kind = graph.kind(op)
        if kind not in (
            "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV",
        ):  # fmt: skip
            continue
        kernel = tensors[op.inputs[1]].shape
        image = tensors[op.inputs[2] if kind == "TRANSPOSE_CONV" else op.outputs[0]]
        pixels = int(np.prod(image.shape[:-1]))
        total += pixels * int(np.prod(kernel))
    return total


def measure(name: str) -> dict:
    import keras
    import numpy as np

    import dqa_keras as dqa
    from dqa_keras.export.litert.conversion import convert
    from dqa_keras.export.packed import pack

    keras.utils.set_random_seed(0)
    shape = (_SIZE, _SIZE, 3)
    model = getattr(keras.applications, name)(weights=None, input_shape=shape)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(quantized, images, batch_size=2, verbose=0)
    builtin = convert(quantized, "float32")
    data, report = pack.pack_regions(builtin, quantized, images, trusted=True)
    everything, outside = products(builtin), products(data)
    return {
        "products": everything,
        "inside": (everything - outside) / everything,
        "regions": len(report.regions),
        "reasons": dict(Counter(report.outside.values())),
    }


def table(rows: dict[str, dict]) -> str:
    lines = [
        "| model | million multiply-accumulates | in regions | regions | outside |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        why = "; ".join(f"{count} x {why}" for why, count in row["reasons"].items())
        lines.append(
            f"| {name} | {row['products'] / 1e6:.1f} | {100 * row['inside']:.2f} % | "
            f"{row['regions']} | {why} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument(
        "--json", type=arguments.output, help="file for the figures; .md beside it"
    )
    flags.add_argument("--models", nargs="*", choices=NAMES, default=list(NAMES))
    flags.add_argument("--one", help=argparse.SUPPRESS)
    options = flags.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows = results.read(options.json)
    for name in options.models:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {100 * rows[name]['inside']:.2f} % inside", flush=True)
        if options.json:
            results.write(options.json, rows)
            options.json.with_suffix(".md").write_text(table(rows))
    print(table(rows), end="")
    if any(rows[name]["inside"] < _LEAST.get(name, 0) for name in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
