"""Any flags end with 0, or with one line and 2 (or 1); files stay or are whole.

Values are good, bad and absurd. Commands run in this process on tiny models.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dqa_keras as dqa
from dqa_keras.cli import bench, main

# Measuring what is covered takes longer than the tests themselves.
pytestmark = pytest.mark.no_cover

OLD = b"what was there before"
ABSURD = [
    "",
    "-1",
    "0",
    "1e400",
    "nan",
    "9" * 30,
    "\x00",
    "\x1b[2J",
    "ä" * 300,
    "--",
    ".",
]
NUMBERS = ["1", "2", "4", "8", "0.5", *ABSURD]
SWITCHES = ["true", "false", "maybe", ""]
DATA = ["data.npz", "bad.npz", "other.npz", "empty.npy", "x.npy", "images", "no.npz"]
MODELS = ["m.keras", "q.keras", "two.keras", "bad.keras", "resnet32", "no.keras", "."]
OUTPUTS = ["out.tflite", "out.keras", "out.html", "old.tflite", "/dev/full", "link"]
WHERE = [*OUTPUTS, "no/out.tflite", ".", "", "\x00.tflite"]

CONFIG = {
    "bits": NUMBERS,
    "extra_bits": NUMBERS,
    "important_fraction": NUMBERS,
    "budget_bits": NUMBERS,
    "method": ["dqa", "direct", "noisyquant", "guess", ""],
    "preset": ["default", "paper", "best"],
    "ranking": ["mse", "greedy", "random"],
    "entropy": ["all", "residual", ""],
}
READ = {
    "weights": ["w.npz", "cifar10", ""],
    "data_dir": [".", "nowhere", "\x00"],
    "manual_dir": ["nowhere", ""],
    "calibration_images": NUMBERS,
    "limit": NUMBERS,
}
TFLITE = {
    "mode": ["builtin", "packed", "squeezed"],
    "strict": SWITCHES,
    "skips": ["raw", "coded", "none"],
    "arena_kib": ["96", "0.1", *ABSURD],
    "tflite_weights": ["float32", "float16", "int8", "int4"],
    "mean": ["0.5", "1,2,3", *ABSURD],
    "std": ["0.5", "1,2,3", *ABSURD],
}
FLAGS = {
    "quantize": {**CONFIG, **READ, **TFLITE, "checkpoint": WHERE, "workers": SWITCHES},
    "evaluate": {
        **READ,
        "presets": ["default", "best", ""],
        "methods": ["direct", "direct,dqa", "guess", ""],
        "bits": ["3", "3,4", *ABSURD],
        "tflite": SWITCHES,
        "json": [*WHERE, "foreign.json"],
    },
    "export": {
        **TFLITE,
        "android": ["app", "old.tflite", "", "\x00"],
        "package": ["com.shop", "Shop", ""],
        "samples": DATA,
        "labels": ["a,b,c", "a", "", "\x1b,b,c"],
    },
    "report": {**CONFIG, **READ, "overlay": ["over", "no/over", ""]},
    "inspect": {"json": SWITCHES, "plan": SWITCHES, "runtime": SWITCHES},
    # Those two work for minutes: here they are always refused.
    "bench": {
        "rounds": NUMBERS,
        "images": NUMBERS,
        "limit": NUMBERS,
        "threads": NUMBERS,
        "seconds": NUMBERS,
        "json": [*WHERE, "foreign.json"],
        "models": ["resnet32", "MobileNetV2", "guess", ""],
        "networks": ["unet", "guess"],
        "isa": ["auto", "guess"],
        "data_dir": READ["data_dir"],
        "weights": READ["weights"],
    },
    "demo": {"bits": NUMBERS, "json": WHERE},
}
BENCHMARKS = sorted(
    path.stem
    for path in Path(bench.__file__).parents[2].glob("benchmarks/**/*.py")
    if path.parent.name != "shared"
)
REFUSED = {
    "bench": ["--bogus", "--bogus=1", "--json=", "--rounds=0", "more"],
    "demo": ["--bogus", "--output=", "--output=old.tflite", "--output=\x00", "more"],
}
# Without these a command does nothing.
USUAL = {
    "quantize": {"model": MODELS, "data": DATA, "output": WHERE},
    "evaluate": {"model": MODELS, "data": DATA},
    "export": {"model": MODELS, "output": WHERE},
    "report": {"data": DATA, "output": WHERE},
    "inspect": {},
    "bench": {},
    "demo": {},
}
GOOD = {"model": "m.keras", "data": "data.npz", "output": "out.tflite"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with models and data, good and bad."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(2, 3, activation="relu")(image)
    head = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    model = keras.Model(image, head)
    model.save(folder / "m.keras")
    keras.Model(image, [head, x]).save(folder / "two.keras")
    random = np.random.default_rng(0)
    x = random.random((6, 4, 4, 1), np.float32)
    y = random.integers(0, 3, 6)
    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    dqa.calibrate(quantized, x, verbose=0)
    quantized.save(folder / "q.keras")
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "other.npz", x=x[:, :3], y=y)
    np.savez(folder / "bad.npz", x=np.full_like(x, np.nan), y=y)
    np.save(folder / "x.npy", x)
    np.save(folder / "empty.npy", x[:0])
    (folder / "images" / "cat").mkdir(parents=True)
    (folder / "images" / "cat" / "1.png").touch()
    (folder / "bad.keras").write_bytes(b"PK")
    (folder / "old.tflite").write_bytes(OLD)
    (folder / "foreign.json").write_text("[]")
    (folder / "link").symlink_to("old.tflite")
    return folder


@st.composite
def commands(draw):
    """A command line: mostly good, with some flags of any value."""
    name = draw(st.sampled_from(sorted(FLAGS)))
    values = {flag: GOOD[flag] for flag in USUAL[name]}
    known = {**FLAGS[name], **USUAL[name]}
    for flag in draw(st.lists(st.sampled_from(sorted(known)), max_size=3)):
        values[flag] = draw(st.sampled_from(known[flag]))
    paths = []
    if name in ("inspect", "report"):
        places = [*MODELS, "old.tflite", "x.npy", "\x1b"]
        paths = draw(st.lists(st.sampled_from(places), min_size=1, max_size=2))
    if name == "bench":
        paths = [draw(st.sampled_from([*BENCHMARKS, "guess", "", "--", "../cost"]))]
    command = [name, *paths, *(f"--{flag}={value}" for flag, value in values.items())]
    if name in REFUSED:
        command.append(draw(st.sampled_from(REFUSED[name])))
    return command


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def is_whole(name, data):
    """Whether a file that a command wrote can be read by what it is for."""
    if name.endswith("out.keras"):
        return data[:2] == b"PK"
    if name.endswith(".html") or data.startswith(b"<!doctype html>"):
        return data.rstrip().endswith(b"</html>")
    if data[4:8] == b"TFL3":
        return True
    try:
        return "rows" in json.loads(data)
    except ValueError:
        return data[:2] == b"PK" or name.startswith("app")


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(commands())
def test_any_flags(files, tmp_path, monkeypatch, capsys, arguments):
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(files, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name in ("argv", "path"):  # which a benchmark changes
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))
    before = content(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main.run(arguments)
    error = capsys.readouterr().err
    after = content(folder)
    assert stop.value.code in ((2,) if arguments[0] in REFUSED else (0, 1, 2)), error
    assert (folder / "link").is_symlink()
    assert not [name for name in after if os.path.basename(name).startswith(".")]
    assert set(before) <= set(after)
    if stop.value.code:
        assert "Traceback" not in error
        assert "please report it" not in error
        lines = [line for line in error.splitlines() if line.startswith("dqa: ")]
        assert len(lines) == 1
        assert error.splitlines()[-1] == lines[0]
        assert all(char.isprintable() for char in lines[0])
    for name, data in after.items():
        if before.get(name) != data:
            assert is_whole(name, data), name
