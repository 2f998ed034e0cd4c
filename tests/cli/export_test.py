"""`dqa export`; commands_test.py has the way there."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.cli import main
from dqa_keras.export import read_metadata


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ],
        name="stripes",
    )
    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    images = np.random.default_rng(0).random((8, 8, 8, 3), np.float32)
    dqa.calibrate(quantized, images, verbose=0)
    path = tmp_path_factory.mktemp("calibrated") / "stripes.keras"
    quantized.save(path)
    return path


def run(capsys, *arguments):
    """Exit code and standard error of `dqa export`."""
    with pytest.raises(SystemExit) as stop:
        main.run(["export", *map(str, arguments)])
    return stop.value.code, capsys.readouterr().err


def test_a_folder_for_android(calibrated, tmp_path, capsys):
    folder = tmp_path / "out"
    code, text = run(
        capsys,
        *("--model", calibrated, "--android", folder),
        *("--package", "com.shop", "--labels", "a,b,c,d"),
    )
    assert code == 0, text
    model = folder / "src/main/assets/stripes.tflite"
    assert read_metadata(model).config["labels"] == ["a", "b", "c", "d"]
    assert (folder / "src/main/kotlin/com/shop/Stripes.kt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --output FILE.tflite or --android FOLDER"),
        (("--android", "out", "--output", "m.tflite"), "give either --output"),
        (("--android", "out", "--package", "Shop"), "package must be"),
        (("--output", "m.tflite", "--input_shape", "8,x"), "Received: 8,x"),
        (("--output", "m.tflite", "--input_shape", "8,8,4"), "input_shape must be"),
        (("--output", "m.tflite", "--mean", "1"), "Received: only --mean"),
        (("--output", "m.tflite", "--std", "1"), "Received: only --std"),
        (("--output", "m.tflite", "--mean", "a", "--std", "1"), "Received: a and 1"),
        (("--output", "m.tflite", "--mean=", "--std="), "normalization must be"),
        (("--output", "m.tflite", "--mean=1", "--std=0"), "normalization must be"),
        (("--output", "m.tflite", "--samples", "no.npy"), "--samples must be an .npy"),
        (("--output", "/nowhere/m.tflite"), "no such folder /nowhere"),
        (("--output", ""), "cannot write"),
        (("--output", "/dev/full"), "cannot write /dev/full: No space left on device"),
    ],
)
def test_a_mistake_leaves_nothing(
    calibrated, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, text = run(capsys, "--model", calibrated, *arguments)
    assert code == 2
    assert message in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values", [np.zeros((0, 8, 8, 3)), np.full((1, 8, 8, 3), np.nan)]
)
def test_samples_that_show_nothing_are_refused(calibrated, tmp_path, capsys, values):
    samples = tmp_path / "samples.npy"
    np.save(samples, values)
    output = ("--output", tmp_path / "m.tflite", "--samples", samples)
    code, text = run(capsys, "--model", calibrated, *output)
    assert (code, text.count("\n")) == (2, 1)
    assert "--samples must be an .npy file of numbers" in text
    assert list(tmp_path.iterdir()) == [samples]


def test_mean_and_std_are_recorded(calibrated, tmp_path, capsys):
    path = tmp_path / "m.tflite"
    flags = ("--mean", "1,2,3", "--std", "4.5,5,6")
    code, text = run(capsys, "--model", calibrated, "--output", path, *flags)
    assert code == 0, text
    said = read_metadata(path).config["input"]
    assert said == {"mean": [1, 2, 3], "std": [4.5, 5, 6]}


def test_a_model_of_any_size_gets_one(tmp_path, capsys):
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.UpSampling2D(interpolation="bilinear"),
        ]
    )
    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    dqa.calibrate(quantized, np.zeros((4, 8, 8, 3), np.float32) + 0.5, verbose=0)
    quantized.save(tmp_path / "any.keras")
    arguments = ("--model", tmp_path / "any.keras", "--output", tmp_path / "m.tflite")
    code, text = run(capsys, *arguments, "--mode", "packed")
    assert code == 2
    assert "input_shape=" in text
    assert not (tmp_path / "m.tflite").exists()
    code, text = run(capsys, *arguments, "--input_shape", "8,8,3")
    assert code == 0, text
