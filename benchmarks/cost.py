"""What quantization costs, as ratios measured side by side in one run.

    python benchmarks/cost.py --rounds 7 --json benchmarks/results/cost.json

ResNet-32 on random images; weights do not change the time. Prints, as medians of
several rounds:

- predict of the quantized model over predict of the float model, batch 256, CPU time
- mse calibration over one predict of the same images, CPU time
- latency of the built-in export over the float .tflite, one image, one thread, XNNPACK,
  and the same of MobileNetV2 at 224 x 224
- peak memory of a calibrating process at 50,000 images over 1,000 images
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 256
NETWORKS = ("resnet32", "mobilenet_v2")


def images(count: int, seed: int = 0):
    import numpy as np

    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 32, 32, 3)).astype(np.float32)


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cpu_seconds(function) -> float:
    """Of all threads: by the clock, `predict` waits for more than its own work here."""
    start = time.process_time()
    function()
    return time.process_time() - start


def predict_and_calibrate(rounds: int) -> dict:
    import dqa_keras as dqa
    from dqa_keras.models import resnet32

    x = images(16 * BATCH)
    model = resnet32()
    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    dqa.calibrate(quantized, x[:BATCH], verbose=0)

    def predict(network):
        return lambda: network.predict(x, batch_size=BATCH, verbose=0)

    def calibrate():
        dqa.calibrate(quantized, x, batch_size=BATCH, verbose=0)

    for network in (model, quantized):
        predict(network)()  # traces the graph
    predicting, calibrating = [], []
    for _ in range(rounds):
        plain = cpu_seconds(predict(model))
        predicting.append(cpu_seconds(predict(quantized)) / plain)
        calibrating.append(cpu_seconds(calibrate) / plain)
    return {
        "images": len(x),
        "predict_ratio": statistics.median(predicting),
        "calibrate_ratio": statistics.median(calibrating),
        "predict_ratios": predicting,
        "calibrate_ratios": calibrating,
    }


def latency(name: str, rounds: int) -> dict:
    """The built-in export beside the float .tflite, one thread."""
    import keras
    import numpy as np

    import dqa_keras as dqa
    from dqa_keras.export import export_tflite
    from dqa_keras.export.litert.conversion import convert
    from dqa_keras.export.litert.interpreter import Runner
    from dqa_keras.models import resnet32

    keras.utils.set_random_seed(0)
    if name == "resnet32":
        model, x = resnet32(), images(64)
    else:
        model = keras.applications.MobileNetV2(weights=None)
        x = np.random.default_rng(0).random((16, 224, 224, 3), np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    dqa.calibrate(quantized, x, batch_size=16, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        export_tflite(quantized, path, samples=x[:1])
        files = {"builtin": path.read_bytes(), "float": convert(model, "float32")}
    runners = {kind: Runner(data, threads=1) for kind, data in files.items()}
    times = {kind: [] for kind in runners}
    for run in runners.values():
        run(x[:1])
    for _ in range(rounds):
        for kind, run in runners.items():
            times[kind].append(seconds(lambda run=run: [run(x[:1]) for _ in range(10)]))
    ratios = [q / f for q, f in zip(times["builtin"], times["float"], strict=True)]
    return {
        "latency_ratio": statistics.median(ratios),
        "float_ms": 100 * statistics.median(times["float"]),
        "bytes": {kind: len(data) for kind, data in files.items()},
    }


def peak_memory(count: int) -> float:
    """MiB at the high-water mark of this process after calibrating on a stream."""
    import tensorflow as tf

    import dqa_keras as dqa
    from dqa_keras.models import resnet32

    part = images(1000)
    stream = tf.data.Dataset.from_tensor_slices(part).repeat(count // 1000).batch(100)
    quantized = dqa.quantize_model(resnet32(), dqa.DQAConfig())
    dqa.calibrate(quantized, stream, verbose=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory() -> dict:
    peaks = {}
    for count in (1000, 50000):
        command = [sys.executable, __file__, "--peak", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[count] = float(done.stdout.splitlines()[-1])
    return {
        "peak_mib": {str(count): peak for count, peak in peaks.items()},
        "memory_ratio": peaks[50000] / peaks[1000],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=arguments.output, help="file for the figures")
    parser.add_argument("--rounds", type=arguments.count, default=5)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_memory(options.peak))
        return
    result = {
        **predict_and_calibrate(options.rounds),
        **{name: latency(name, 5 * options.rounds) for name in NETWORKS},
        **memory(),
    }
    asked = {"predict_ratio": 1.1, "calibrate_ratio": 4.0, "memory_ratio": 1.05}
    rows = [(name, result[name], limit) for name, limit in asked.items()]
    rows += [
        (f"latency {name}", result[name]["latency_ratio"], 1.05) for name in NETWORKS
    ]
    for name, measured, limit in rows:
        print(f"{name:22} {measured:.3f}  (at most {limit})")
    if options.json:
        results.write(options.json, result)


if __name__ == "__main__":
    main()
