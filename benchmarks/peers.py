"""Predict and calibration beside what a user would pick instead.

    dqa bench peers --json benchmarks/results/peers.json

ResNet-32 with random weights, the same random images for all, activations at 4 bits and
weights in float (ai-edge-quantizer: all at 8 bits, its calibration alone is measured,
in both of its modes). QKeras and HGQ2 run as their layers are and once more compiled by
XLA as a whole; DQA's quantizers compile themselves. Peers get virtual environments of
their own, made at the first run; one that does not install or does not run is named
with the last line of what it said.

Each row is a process of its own, and all are tied to the same core. In each round they
run one after another, each first the float model over the images and then what is
measured. Prints medians of the ratios of the two, of the calibrations to each other,
and each process's peak resident memory, framework and float model included. Ratios are
of CPU time: by the clock, which the JSON has too, Keras' `predict` may wait longer than
it computes.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 256
BITS = 4

# What pip installs; pyparsing is missing among what QKeras asks for.
REQUIREMENTS = {
    "qkeras": ("qkeras==0.9.0", "tf-keras", "pyparsing"),
    "hgq2": ("hgq2==0.2.0",),
    "ai-edge-quantizer": ("ai-edge-quantizer==0.10.0",),
}

# A float run over some images, and what is measured beside it.
Run = Callable[[Any], Any]
Runs = tuple[Run, Run]


class Unusable(Exception):
    """A peer does not install or does not run."""


def images(count: int):
    import numpy as np

    x = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3))
    return x.astype(np.float32)


def resnet32(keras, activation):
    """The network, of Keras 3 or tf_keras; `activation()` is its ReLU, 31 times."""
    layers = keras.layers

    def normed(x, filters, stride):
        x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((32, 32, 3))
    x = activation()(normed(layers.Rescaling(1 / 255)(inputs), 16, 1))
    for block in range(15):
        filters, stride = 16 << block // 5, 1 + (block in (5, 10))
        y = activation()(normed(x, filters, stride))
        y = normed(y, filters, 1)
        if stride == 2:
            x = layers.AveragePooling2D(1, 2)(x)
            height, width, channels = x.shape[1:]
            x = layers.Reshape((height * width, channels, 1))(x)
            x = layers.ZeroPadding2D(((0, 0), (channels // 2, channels // 2)))(x)
            x = layers.Reshape((height, width, filters))(x)
        x = activation()(layers.Add()([y, x]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def predicting(model, jit: bool = False) -> Run:
    """`predict` of a model, which XLA compiles as a whole if `jit`."""
    if jit:
        model.compile(jit_compile=True)
    return lambda x: model.predict(x, batch_size=BATCH, verbose=0)


def float_predict(x, file: Path) -> Runs:
    import keras

    predict = predicting(resnet32(keras, keras.layers.ReLU))
    return predict, predict


def dqa_model():
    """The float model, and quantized."""
    import keras

    import dqa_keras as dqa

    model = resnet32(keras, keras.layers.ReLU)
    return model, dqa.quantize_model(model, dqa.DQAConfig(bits=BITS))


def dqa_predict(x, file: Path) -> Runs:
    import dqa_keras as dqa

    model, quantized = dqa_model()
    dqa.calibrate(quantized, x, verbose=0)
    return predicting(model), predicting(quantized)


def dqa_calibrate(x, file: Path) -> Runs:
    import dqa_keras as dqa

    model, quantized = dqa_model()
    return predicting(model), lambda x: dqa.calibrate(
        quantized, x, batch_size=BATCH, verbose=0
    )


def qkeras_predict(x, file: Path, jit: bool = False) -> Runs:
    import tf_keras
    from qkeras import QActivation, quantized_relu

    def activation():
        return QActivation(quantized_relu(BITS, 2))

    model = resnet32(tf_keras, tf_keras.layers.ReLU)
    return predicting(model), predicting(resnet32(tf_keras, activation), jit)


def hgq2_predict(x, file: Path, jit: bool = False) -> Runs:
    import keras
    from hgq.quantizer import Quantizer, QuantizerConfig

    def activation():
        config = QuantizerConfig(
            "kif",
            "datalane",
            k0=False,
            i0=2,
            f0=BITS - 2,
            overflow_mode="SAT",
            homogeneous_axis=(0, 1, 2),  # one width a channel
        )
        return lambda x: Quantizer(config)(keras.layers.ReLU()(x))

    model = resnet32(keras, keras.layers.ReLU)
    return predicting(model), predicting(resnet32(keras, activation), jit)


def quantizer_calibrate(x, file: Path, profiler: bool = False) -> Runs:
    """One image at a time: XNNPACK refuses to give the file another batch size."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.calibrator import CalibrationMode

    mode = (
        CalibrationMode.CALIBRATION_PROFILER_BASED
        if profiler
        else CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS
    )
    interpreter = Interpreter(str(file), num_threads=1)
    run = interpreter.get_signature_runner()
    (name,) = run.get_input_details()

    def samples(x):
        return [{name: x[i : i + 1]} for i in range(len(x))]

    def calibrate(x):
        calibrator = quantizer.Quantizer(str(file), recipe.static_wi8_ai8())
        calibrator.calibrate({"serving_default": samples(x)}, num_threads=1, mode=mode)

    return lambda x: [run(**sample) for sample in samples(x)], calibrate


# Name, virtual environment, and what makes its runs from a batch of images and the
# float model for LiteRT.
PEERS: dict[str, tuple[str | None, Callable[[Any, Path], Runs]]] = {
    "float predict": (None, float_predict),
    "DQA predict": (None, dqa_predict),
    "QKeras predict": ("qkeras", qkeras_predict),
    "QKeras predict, XLA": ("qkeras", partial(qkeras_predict, jit=True)),
    "HGQ2 predict": ("hgq2", hgq2_predict),
    "HGQ2 predict, XLA": ("hgq2", partial(hgq2_predict, jit=True)),
    "DQA calibrate": (None, dqa_calibrate),
    "ai-edge-quantizer calibrate": ("ai-edge-quantizer", quantizer_calibrate),
    "ai-edge-quantizer calibrate, profiler": (
        "ai-edge-quantizer",
        partial(quantizer_calibrate, profiler=True),
    ),
}


def write_file(file: Path) -> None:
    """The float model for LiteRT."""
    import keras

    from dqa_keras.export.litert.conversion import convert

    file.write_bytes(convert(resnet32(keras, keras.layers.ReLU), "float32"))


def seconds(run: Run, x) -> tuple[float, float]:
    """By the CPU time of this process, and by the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    run(x)
    return time.process_time() - cpu, time.perf_counter() - clock


def ratio(run: list[float], other: list[float]) -> float:
    """Of two runs, by CPU time."""
    return run[0] / other[0]


def peak_mib() -> float:
    """Of this process since it began, which `ru_maxrss` would not be."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def versions() -> dict[str, str]:
    """What is installed here of what a peer is made of."""
    names = {"tensorflow", "keras", "tf_keras", "ai-edge-litert", *REQUIREMENTS}
    installed = {}
    for name in sorted(names):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def work(name: str, count: int, file: Path) -> None:
    """One peer: warms up, then answers each line of stdin with a round."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    x = images(count)
    runs = PEERS[name][1](x[:BATCH], file)
    for run in runs:
        run(x[:BATCH])
    print(json.dumps(versions()), flush=True)
    for _ in sys.stdin:
        times = [seconds(run, x) for run in runs]
        print(json.dumps({"seconds": times, "peak_mib": peak_mib()}), flush=True)


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1].strip() if text.strip() else "nothing"


def environment(name: str | None, requirements: tuple[str, ...], folder: Path) -> str:
    """The Python of a peer, made if it is not there.

    Raises:
        Unusable: If pip fails.
    """
    if name is None:
        return sys.executable
    venv, python = folder / name, folder / name / "bin" / "python"
    done = venv / "installed"
    if not done.exists() or done.read_text() != repr(requirements):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", *requirements]
        installed = subprocess.run(command, capture_output=True, text=True)
        if installed.returncode:
            raise Unusable(f"does not install: {last_line(installed.stderr)}")
        done.write_text(repr(requirements))
    return str(python)


class Peer:
    """A running process of one peer."""

    def __init__(self, name: str, count: int, file: Path) -> None:
        venv, _ = PEERS[name]
        requirements = REQUIREMENTS.get(venv or "", ())
        if venv in ("qkeras", "hgq2"):
            requirements += (f"tensorflow=={importlib.metadata.version('tensorflow')}",)
        python = environment(venv, requirements, file.parent)
        self._log = (file.parent / f"{name.replace(' ', '_')}.log").open("w+")
        settings = {"TF_USE_LEGACY_KERAS": "1"} if venv == "qkeras" else {}
        self._process = subprocess.Popen(
            [python, __file__, "--work", name, str(count), str(file)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.versions = self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout or ():
            if line.startswith("{"):  # libraries print too
                return json.loads(line)
        self._process.wait()
        self._log.seek(0)
        raise Unusable(f"does not run: {last_line(self._log.read())}")

    def round(self) -> dict[str, Any]:
        """Seconds of the float run and of what is measured, and the peak so far."""
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        """Lets the process end."""
        self._process.communicate()


def measure(rounds: int, count: int, file: Path) -> dict[str, dict[str, Any]]:
    """A row for each peer."""
    rows: dict[str, dict[str, Any]] = {}
    peers: dict[str, Peer] = {}
    for name in PEERS:
        try:
            peers[name] = Peer(name, count, file)
        except Unusable as error:
            rows[name] = {"error": str(error)}
            print(f"{name} {error}", flush=True)
            continue
        rows[name] = {"versions": peers[name].versions, "seconds": []}
    for _ in range(rounds):
        for name, peer in peers.items():
            measured = peer.round()
            rows[name]["seconds"].append(measured["seconds"])
            rows[name]["peak_mib"] = measured["peak_mib"]
    for name, peer in peers.items():
        peer.end()
        pairs = rows[name]["seconds"]
        rows[name]["ratio"] = statistics.median(
            ratio(ours, plain) for plain, ours in pairs
        )
    return rows


def calibrations(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How long DQA calibrates, of each other calibration's time; by rounds."""
    ours = rows["DQA calibrate"].get("seconds", [])
    return {
        name: statistics.median(
            ratio(a[1], b[1]) for a, b in zip(ours, row["seconds"], strict=True)
        )
        for name, row in rows.items()
        if name.startswith("ai-edge-quantizer") and "seconds" in row
    }


def overview(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    lines = ["| | of float predict | peak of the process |", "|---|---|---|"]
    for name, row in result["rows"].items():
        if "error" in row:
            lines.append(f"| {name} | {row['error']} | |")
        else:
            lines.append(
                f"| {name} | {row['ratio']:.2f}x | {row['peak_mib']:.0f} MiB |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=arguments.output, help="file for the figures")
    parser.add_argument("--rounds", type=arguments.count, default=3)
    parser.add_argument("--images", type=arguments.count, default=512)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("build/peers"),
        help="where the virtual environments are kept",
    )
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_file(options.write)
        return
    if options.work:
        name, count, file = options.work
        work(name, int(count), Path(file))
        return
    file = options.folder.resolve() / "float.tflite"
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--write", str(file)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    rows = measure(options.rounds, options.images, file)
    result = {"images": options.images, "batch": BATCH, "bits": BITS, "rows": rows}
    result["calibration_ratios"] = calibrations(rows)
    print(overview(result))
    for name, ratio in result["calibration_ratios"].items():
        print(f"DQA calibrates in {ratio:.2f}x the time of {name}")
    if options.json:
        results.write(options.json, result)


if __name__ == "__main__":
    main()
