"""`dqa inspect` of files that others wrote: what it prints steers no terminal."""

import zipfile

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.cli import main
from dqa_keras.export import export_tflite

# In JSON, a character that starts a terminal's commands; of the same length, a word.
ESCAPE, WORD = b"\\u001b", b"ESCAPE"


@pytest.fixture(scope="module")
def model():
    layers = [
        keras.Input((4, 4, 2)),
        keras.layers.Conv2D(2, 3, activation="relu", name="conv"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
    ]
    model = keras.Sequential(layers, name=f"net_{WORD.decode()}")
    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    x = np.random.default_rng(0).random((4, 4, 4, 2), np.float32)
    dqa.calibrate(quantized, x, verbose=0)
    return quantized


def inspected(capsys, *arguments):
    """Exit code, standard output and standard error of `dqa inspect`."""
    with pytest.raises(SystemExit) as stop:
        main.run(["inspect", *map(str, arguments)])
    return stop.value.code, *capsys.readouterr()


def test_control_characters_of_a_tflite_are_escaped(model, tmp_path, capsys):
    path = tmp_path / "m.tflite"
    export_tflite(model, path)
    path.write_bytes(path.read_bytes().replace(WORD, ESCAPE))
    code, text, _ = inspected(capsys, path)
    assert code == 0
    assert r"net_\x1b" in text
    assert all(char.isprintable() for char in text.replace("\n", ""))
    assert "\x1b" not in inspected(capsys, path, "--json")[1]


def test_control_characters_of_a_keras_file_are_escaped(model, tmp_path, capsys):
    model.save(tmp_path / "m.keras")
    path = tmp_path / "\x1b.keras"
    with (
        zipfile.ZipFile(tmp_path / "m.keras") as old,
        zipfile.ZipFile(path, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(WORD, ESCAPE))
    _, *texts = inspected(capsys, path)
    assert any(r"\x1b" in text for text in texts)
    for text in texts:
        assert all(char.isprintable() for char in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("normalization", "line"),
    [
        (None, "input: the file does not say whether values must be normalised"),
        (([0.5], [2.0]), "(value - mean) / std for each channel, mean 0.5, std 2"),
        (([1, 2], [3, 4]), "mean 1, 2, std 3, 4"),
    ],
)
def test_normalization_is_said_where_it_is_known(
    model, tmp_path, capsys, normalization, line
):
    path = tmp_path / "m.tflite"
    export_tflite(model, path, normalization=normalization)
    assert line in inspected(capsys, path)[1]
