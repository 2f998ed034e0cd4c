"""Bad days: full disks, kills, two writers. Old files stay, or new ones are whole."""

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras import files
from dqa_keras.cli import main
from dqa_keras.export import read_metadata

DQA = Path(sys.executable).with_name("dqa")
OLD = b"what was there before"


@pytest.fixture(scope="module")
def model():
    """A calibrated model with 150 KB of weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 8)),
            keras.layers.Conv2D(512, 3, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=3))
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 8)).astype(np.float32)
    dqa.calibrate(quantized, x, verbose=0)
    return quantized


@pytest.fixture
def saved(model, tmp_path):
    """The model as a .keras file, in a folder of its own."""
    path = tmp_path / "in" / "model.keras"
    path.parent.mkdir()
    model.save(path)
    return path


@pytest.fixture
def target(tmp_path):
    """An output path where an older file lies, in a folder of its own."""
    path = tmp_path / "out" / "model.tflite"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def _exporting(saved, target, **options):
    return subprocess.Popen(
        [DQA, "export", "--model", saved, "--output", target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _no_space():
    """The model does not fit into a file: writes fail as they do on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_full_disk_leaves_the_old_file(saved, target):
    process = _exporting(saved, target, preexec_fn=_no_space)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert told.count("\n") == 1
    assert "File too large" in told
    assert target.read_bytes() == OLD
    assert list(target.parent.iterdir()) == [target]


_KILLED = """
import importlib.util, os, pathlib, signal, sys
source, target, stage = sys.argv[1], sys.argv[2], int(sys.argv[3])
spec = importlib.util.spec_from_file_location("files", source)
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
seen = 0
def watch(event, arguments):
    global seen
    folder = str(pathlib.Path(target).parent)
    if any(str(argument).startswith(folder) for argument in arguments):
        seen += 1
        if seen == stage:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
with files.replacing(target) as temporary:
    temporary.write_bytes(b"half, ")
    with open(temporary, "ab") as file:
        file.write(b"and the rest")
print("written at", seen)
"""


def _write(target, stage):
    return subprocess.run(
        [sys.executable, "-c", _KILLED, files.__file__, str(target), str(stage)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_kill_at_any_stage_leaves_the_old_file_or_the_whole_new_one(target):
    done = _write(target, 0)
    stages = int(done.stdout.split()[-1])
    assert stages >= 4  # made, opened twice, renamed
    for stage in range(1, stages + 1):
        target.write_bytes(OLD)
        assert _write(target, stage).returncode == -signal.SIGKILL
        assert target.read_bytes() == OLD


def test_two_processes_export_to_one_path(saved, target):
    processes = [_exporting(saved, target) for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=300)[1] == ""
        assert process.returncode == 0
    assert read_metadata(target).tables.keys() == {"conv_dqa"}
    assert list(target.parent.iterdir()) == [target]


def _reading(size, failure):
    yield np.zeros((size, 6, 6, 8), np.float32)
    yield np.ones((size, 6, 6, 8), np.float32)
    raise failure


def test_a_dataset_that_fails_midway_leaves_the_calibration_of_before(model):
    before = [weight.numpy().tobytes() for weight in model.weights]
    with pytest.raises(OSError, match="the cable came off"):
        dqa.calibrate(model, _reading(4, OSError("the cable came off")), verbose=0)
    assert [weight.numpy().tobytes() for weight in model.weights] == before


def test_nan_after_many_batches_names_the_layer_and_keeps_the_calibration(model):
    def batches():
        for _ in range(50):
            yield np.ones((2, 6, 6, 8), np.float32)
        yield np.full((2, 6, 6, 8), np.nan, np.float32)

    before = [weight.numpy().tobytes() for weight in model.weights]
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        dqa.calibrate(model, batches(), verbose=0)
    assert [weight.numpy().tobytes() for weight in model.weights] == before


def test_a_folder_that_is_gone_is_named(saved, tmp_path, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    shutil.rmtree(folder)
    output = folder / "model.tflite"
    with pytest.raises(SystemExit) as stopped:
        main.run(["export", "--model", str(saved), "--output", str(output)])
    assert stopped.value.code == 2
    assert f"cannot write {output}" in capsys.readouterr().err
