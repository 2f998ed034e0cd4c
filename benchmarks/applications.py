"""Converts, calibrates, exports and runs every model of keras.applications.

    python benchmarks/applications.py --json benchmarks/results/applications.json

Random weights, the smallest input each model takes, batch 1, calibrated on 8 random
images. Every model runs in a process of its own; models that the JSON file already
holds are not run again. Exits with 1 if a model failed.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from shared import keras_applications

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Models refuse inputs under their smallest size; the first that works is taken.
_SIZES = (32, 71, 75, 224, 331)


def measure(name: str) -> dict:
    import keras
    import numpy as np

    import dqa_keras as dqa
    from dqa_keras.export import export_tflite
    from dqa_keras.layers import quantizer_layers

    keras.utils.set_random_seed(0)
    for size in _SIZES:
        try:
            model = getattr(keras.applications, name)(
                weights=None, input_shape=(size, size, 3)
            )
        except ValueError as error:
            reason = error
            continue
        break
    else:
        raise reason
    seconds = {}

    def timed(step, function):
        start = time.perf_counter()
        result = function()
        seconds[step] = round(time.perf_counter() - start, 1)
        return result

    images = np.random.default_rng(0).random((8, size, size, 3), np.float32) * 255
    quantized = timed("convert", lambda: dqa.quantize_model(model, dqa.DQAConfig()))
    timed(
        "calibrate", lambda: dqa.calibrate(quantized, images, batch_size=1, verbose=0)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        report = timed(
            "export", lambda: export_tflite(quantized, path, samples=images[:1])
        )
    return {
        "input": size,
        "parameters": model.count_params(),
        "quantizers": len(quantizer_layers(quantized)),
        "compared": report.quantizers,
        "skipped": dict(Counter(skip.reason for skip in dqa.skipped(quantized))),
        "max_difference": report.max_difference,
        "output_range": report.output_range,
        "file_mib": round(report.size / 2**20, 2),
        "seconds": seconds,
    }


def markdown(rows: dict[str, dict]) -> str:
    lines = [
        "| model | input | quantizers | skipped | largest difference / output | s |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items()):
        if "error" in row:
            lines.append(f"| {name} | failed: {row['error']} | | | | |")
            continue
        skipped = "; ".join(f"{n} {why}" for why, n in row["skipped"].items())
        lines.append(
            f"| {name} | {row['input']} | {row['quantizers']} | {skipped} "
            f"| {row['max_difference']:.1e} / {row['output_range']:.1e} "
            f"| {sum(row['seconds'].values()):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    path, rows = keras_applications.measure_all(
        __file__, __doc__.splitlines()[0], measure
    )
    path.with_suffix(".md").write_text(markdown(rows) + "\n")
    sys.exit(any("error" in row for row in rows.values()))


if __name__ == "__main__":
    main()
