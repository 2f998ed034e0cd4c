"""Calibrates every model of keras.applications at its real input size.

    dqa bench real_sizes --json benchmarks/results/real_sizes.json

Random weights and images. Each model runs in a process of its own: it predicts, which
is what memory it takes anyhow, and then calibrates one image at a time. Models that the
JSON file already holds are not run again, so the run may be interrupted. Exits with 1
if a model failed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from shared import results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

IMAGES = 8


def model_names() -> list[str]:
    import keras

    return sorted(
        name
        for name in dir(keras.applications)
        if name[0].isupper() and "_" not in name
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str) -> dict:
    import keras
    import numpy as np

    import dqa_keras as dqa
    from dqa_keras.layers import quantizer_layers

    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    # The default input is what the published weights were trained at; some models
    # leave it open, and were trained at 224.
    model = build(weights=None)
    shape = tuple(size or 224 for size in model.input_shape[1:])
    random = np.random.default_rng(0)

    def images(count):
        return (random.random((1, *shape), np.float32) * 255 for _ in range(count))

    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    for image in images(2):
        quantized.predict_on_batch(image)
    before = peak_mib()
    start = time.perf_counter()
    dqa.calibrate(quantized, images(IMAGES), batch_size=1, verbose=0)
    seconds = time.perf_counter() - start
    layers = quantizer_layers(quantized)
    return {
        "input": list(shape),
        "quantizers": len(layers),
        "channels": sum(layer.scale.shape[0] for layer in layers),
        "predict_mib": round(before),
        "calibrate_mib": round(peak_mib()),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the figures")
    parser.add_argument("--models", nargs="*", help="only these; default: all")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows = results.read(options.json)
    for name in options.models or model_names():
        if name in rows and "error" not in rows[name]:
            continue
        command = [sys.executable, __file__, "--json", options.json, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            rows[name] = json.loads(done.stdout.splitlines()[-1])
        else:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            rows[name] = {"error": lines[-1]}
        print(name, rows[name], flush=True)
        results.write(options.json, rows)
    failed = [name for name, row in rows.items() if "error" in row]
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
