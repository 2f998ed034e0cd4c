"""What of a network runs on packed activations, and what that leaves in float32.

    python benchmarks/coverage.py --json benchmarks/results/coverage.json

All models of keras.applications at 96x96, and small networks of what modern ones are
made of, with random weights: 4 bits and 2 extra bits, calibrated on two random images.
Counts the share of the multiplications that regions compute, the regions, and the bytes
of float tensors that LiteRT keeps besides the model's inputs and outputs. Every model
runs in a process of its own. Models that the JSON file holds are not run again; a table
is written beside it. Exits with 1 if MobileNetV2 or ResNet50 is below 95 %.
"""

import os
import sys
from collections import Counter

from shared import keras_applications

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_SIZE = 96
_LEAST = {"MobileNetV2": 0.95, "ResNet50": 0.95}


def measure(name: str) -> dict:
    import keras
    import numpy as np
    from shared.modern_networks import NETWORKS

    import dqa_keras as dqa
    from dqa_keras.export.litert import flatbuffer
    from dqa_keras.export.litert.conversion import convert
    from dqa_keras.export.packed import pack
    from dqa_keras.export.packed.report import multiplications

    keras.utils.set_random_seed(0)
    if name in NETWORKS:
        model = NETWORKS[name]()
    else:
        shape = (_SIZE, _SIZE, 3)
        model = getattr(keras.applications, name)(weights=None, input_shape=shape)
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    images = images.astype(np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(quantized, images, batch_size=2, verbose=0)
    builtin = convert(quantized, "float32")
    _, report = pack.pack_regions(builtin, quantized, images, trusted=True)
    return {
        "products": multiplications(flatbuffer.parse(builtin)),
        "inside": report.share,
        "regions": len(report.regions),
        "largest_float": max(report.float_tensors.values(), default=0),
        "floats": len(report.float_tensors),
        "obstacle": report.largest_obstacle,
        "reasons": dict(Counter(report.outside.values())),
    }


def table(rows: dict[str, dict]) -> str:
    lines = [
        "| model | inside | regions | float tensors left | the largest | outside |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "error" in row:
            lines.append(f"| {name} | | | | | {row['error']} |")
            continue
        why = "; ".join(f"{count} x {why}" for why, count in row["reasons"].items())
        floats, largest = row.get("floats", ""), ""
        if floats:
            largest = f"{row['largest_float'] / 1024:.1f} KiB"
        lines.append(
            f"| {name} | {100 * row['inside']:.2f} % | "
            f"{row['regions']} | {floats} | {largest} | {why or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    from shared.modern_networks import NETWORKS

    path, rows = keras_applications.measure_all(
        __file__, __doc__.splitlines()[0], measure, NETWORKS
    )
    path.with_suffix(".md").write_text(table(rows))
    print(table(rows), end="")
    wanted = {name: least for name, least in _LEAST.items() if name in rows}
    if any(rows[name].get("inside", 0) < least for name, least in wanted.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
