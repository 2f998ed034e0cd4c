"""Calibration and export killed at every stage, and within every write of a file.

Nothing half-written lies under a name that somebody asked for; what was there before
stays, and the same command then ends as if nothing had happened.
"""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from dqa_keras.export import read_metadata

HERE = Path(__file__).resolve().parent
OLD = b"what was there before"
MOST = 14  # places of all to kill at: the first, the last, and some between

CALIBRATION = [
    "graph.insertion.quantize_model",
    "calibration.statistics.collect",
    "calibration.observers.update",
    "calibration.checkpoint.save",
    "calibration.parameters.compute",
    "calibration.ranking.mse_scores",
    "layers.assign",
    "calibration.checkpoint.remove",
    "analysis.storage.storage_bits",
    "cli.outputs.save_keras",
    "files.replacing",
]
EXPORT = [
    "cli.loading.load_keras",
    "export.litert.metadata.describe",
    "files.replacing",
    "export.litert.conversion.convert",
    "export.litert.flatbuffer.parse",
    "export.litert.flatbuffer.attach_metadata",
    "export.litert.flatbuffer.serialize",
    "export.litert.verification.check_codes",
    "export.packed.pack.pack_regions",
    "export.packed.lowering.lower",
    "export.plan.scheduling.schedule",
    "export.packed.report.report_of",
    "export.packed.pack.delegate",
    "export.litert.verification.compare_outputs",
]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs a `dqa` command in a process of its own: how it ended."""
    library = tmp_path_factory.mktemp("killer") / "killer.so"
    source = HERE / "killer.cc"
    subprocess.run(
        ["g++", "-O1", "-Wall", "-shared", "-fPIC", source, "-o", library, "-ldl"],
        check=True,
    )
    server = subprocess.Popen(
        [sys.executable, HERE / "killed.py"],
        env={**os.environ, "LD_PRELOAD": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(*arguments, **asked):
        asked = {"arguments": [*map(str, arguments)], **asked}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        ended = json.loads(server.stdout.readline())
        return ended["status"], ended["writes"]

    yield run
    server.stdin.close()
    assert server.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A float model and its data."""
    folder = tmp_path_factory.mktemp("inputs")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, activation="relu") for _ in range(3)]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((10, 10, 1)), *layers]).save(folder / "m.keras")
    x = np.random.default_rng(0).normal(size=(320, 10, 10, 1)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=np.arange(320) % 3)
    np.save(folder / "x.npy", x[:2])
    return folder


def quantizing(inputs, output):
    asked = ["quantize", f"--model={inputs}/m.keras", f"--data={inputs}/data.npz"]
    checkpoint = output.with_suffix(".checkpoint")
    return [*asked, "--bits=3", f"--output={output}", f"--checkpoint={checkpoint}"]


@pytest.fixture(scope="module")
def quantized(command, inputs, tmp_path_factory):
    """The file that a calibration in peace writes."""
    output = tmp_path_factory.mktemp("peace") / "q.keras"
    assert command(*quantizing(inputs, output))[0] == 0
    return output


def weights(path):
    with zipfile.ZipFile(path) as files:
        return files.read("model.weights.h5")


def exporting(inputs, quantized, output):
    asked = ["export", f"--model={quantized}", f"--output={output}"]
    return [*asked, "--mode=packed", f"--samples={inputs}/x.npy"]


def places(count):
    return sorted({round(at) for at in np.linspace(1, count, min(count, MOST))})


def visible(folder):
    """Names of what is not a hidden temporary file."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_calibration_killed_at_every_stage_goes_on(
    command, inputs, quantized, tmp_path
):
    output = tmp_path / "q.keras"
    output.write_bytes(OLD)
    # One after another: each goes on from what the one before has left.
    for stage in CALIBRATION:
        status, _ = command(*quantizing(inputs, output), stage=f"dqa_keras.{stage}")
        assert status == -signal.SIGKILL, stage
        assert output.read_bytes() == OLD, stage
        assert visible(tmp_path) <= {"q.keras", "q.checkpoint"}, stage
    assert command(*quantizing(inputs, output))[0] == 0
    assert weights(output) == weights(quantized)
    assert visible(tmp_path) == {"q.keras"}


def test_calibration_killed_in_every_write_goes_on(
    command, inputs, quantized, tmp_path
):
    output = tmp_path / "q.keras"
    watched = {"folder": str(tmp_path)}
    status, count = command(*quantizing(inputs, output), **watched)
    assert status == 0
    assert count > 10  # two checkpoints written and one removed, and the model
    for write in places(count):
        output.write_bytes(OLD)
        asked = quantizing(inputs, output)
        assert command(*asked, **watched, write=write)[0] in (-signal.SIGKILL, 0)
        whole = output.read_bytes() == OLD or weights(output) == weights(quantized)
        assert whole, write
    assert command(*quantizing(inputs, output))[0] == 0
    assert weights(output) == weights(quantized)


def test_export_killed_at_every_stage_leaves_the_old_file(
    command, inputs, quantized, tmp_path
):
    output = tmp_path / "m.tflite"
    output.write_bytes(OLD)
    asked = exporting(inputs, quantized, output)
    for stage in EXPORT:
        status, _ = command(*asked, stage=f"dqa_keras.{stage}")
        assert status == -signal.SIGKILL, stage
        assert output.read_bytes() == OLD, stage
        assert visible(tmp_path) == {"m.tflite"}, stage
    assert command(*asked)[0] == 0
    assert len(read_metadata(output).tables) == 3


def test_export_killed_in_every_write_leaves_a_whole_file(
    command, inputs, quantized, tmp_path
):
    output = tmp_path / "m.tflite"
    asked = exporting(inputs, quantized, output)
    status, count = command(*asked, folder=str(tmp_path))
    assert status == 0
    new = output.read_bytes()
    ends = set()
    for write in range(1, count + 1):
        output.write_bytes(OLD)
        status, _ = command(*asked, folder=str(tmp_path), write=write)
        assert status == -signal.SIGKILL
        assert output.read_bytes() in (OLD, new), write
        ends.add(output.read_bytes())
    assert ends == {OLD, new}
