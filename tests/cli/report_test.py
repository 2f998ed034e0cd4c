"""`dqa report`: pages of a Keras model and of its export, and mistakes."""

import re

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.cli import main
from dqa_keras.export import export_tflite


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model and its data, as a user has them."""
    folder = tmp_path_factory.mktemp("user")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9, 9, 1)),
            keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(3, name="head"),
        ]
    )
    model.save(folder / "model.keras")
    random = np.random.default_rng(0)
    x = random.random((60, 9, 9, 1)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=random.integers(0, 3, 60))
    return folder


def succeeds(capsys, *arguments):
    """Runs a command in this process and gives standard output."""
    with pytest.raises(SystemExit) as stop:
        main.run([str(argument) for argument in arguments])
    assert stop.value.code == 0
    return capsys.readouterr().out


def fails(capsys, *arguments):
    """Runs a command that must fail and gives exit code and standard error."""
    with pytest.raises(SystemExit) as stop:
        main.run([str(argument) for argument in arguments])
    return stop.value.code, capsys.readouterr().err


def test_reports_of_a_keras_model_and_of_its_export(files, tmp_path, capsys):
    data = ("--data", files / "data.npz", "--limit", 40)
    page = tmp_path / "keras.html"
    printed = succeeds(
        capsys, "report", files / "model.keras", *data, "--bits", 3, "-o", page
    )
    assert printed.startswith(f"wrote {page}: ")
    text = page.read_text()
    assert "conv_dqa" in text
    assert "Which channels matter" in text
    assert re.search(r"fastest: [\d.]+ KiB at 1.00x", text)
    exported = tmp_path / "model.tflite"
    model = dqa.quantize_model(
        keras.models.load_model(files / "model.keras"), dqa.DQAConfig(bits=3)
    )
    samples = np.load(files / "data.npz")["x"]
    dqa.calibrate(model, samples, verbose=0)
    export_tflite(model, exported, samples=samples[:2])
    page = tmp_path / "tflite.html"
    prefix = tmp_path / "overlay"
    succeeds(capsys, "report", exported, *data, "-o", page, "--overlay", prefix)
    code, text = fails(capsys, "report", exported, *data, "-o", page, "--bits=3")
    assert code == 2
    assert "--bits are for models without quantizers" in text
    assert "it needs the Keras model" in page.read_text()
    assert sorted(path.name for path in tmp_path.glob("overlay*")) == [
        "overlay.sqnr.json",
        "overlay.stored_bits.json",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "report takes one model. Received: 0"),
        (("nowhere.keras",), "no such model: nowhere.keras"),
        (("nowhere.tflite",), "cannot read nowhere.tflite"),
        (("m.keras", "--overlay=o"), "--overlay is for the nodes of a .tflite"),
        (("m.keras", "-o", "/nowhere/r.html"), "no such folder /nowhere"),
        (("{model}", "--data=nowhere.npy"), "--data must be an .npy file"),
    ],
)
def test_a_mistake_in_a_report_gives_one_line(
    files, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    words = [str(a).format(model=files / "model.keras") for a in arguments]
    code, text = fails(capsys, "report", "--data", files / "data.npz", *words)
    assert code == 2
    assert text.strip().splitlines()[-1].startswith("dqa: ")
    assert message in text
    assert list(tmp_path.iterdir()) == []
