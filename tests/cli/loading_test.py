"""Files that are damaged or hostile give one line, whatever is wrong with them."""

import json
import zipfile

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.cli import main
from dqa_keras.cli.loading import load_keras


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A calibrated model in a .keras file."""
    model = keras.Sequential([keras.Input((6,)), dqa.layers.DQA(bits=3, name="q")])
    x = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    dqa.calibrate(model, x, verbose=0)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


def rewritten(saved, path, change):
    """The file with `change` made to its JSON configuration."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)
    return path


def refusal(capsys, *arguments):
    """What the command says as it ends with 2."""
    with pytest.raises(SystemExit) as stopped:
        main.run([*map(str, arguments)])
    told = capsys.readouterr()
    assert stopped.value.code == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_a_whole_file_loads(saved):
    assert load_keras(saved).get_layer("q").is_calibrated


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, tmp_path, capsys, share):
    data = saved.read_bytes()
    path = tmp_path / "short.keras"
    path.write_bytes(data[: int(share * len(data))])
    assert f"cannot load {path}" in refusal(capsys, "inspect", path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bits", 2**31, "bits must be in 1..8"),
        ("bits", None, "bits must be an integer"),
        ("important_fraction", 2, "important_fraction must be a number in 0..1"),
        ("unheard_of", 1, "unheard_of"),
    ],
)
def test_a_config_out_of_range_is_named(saved, tmp_path, field, value, message):
    def change(config):
        config["config"]["layers"][1]["config"][field] = value

    path = rewritten(saved, tmp_path / "changed.keras", change)
    with pytest.raises(ValueError, match=f"cannot load {path}: .*{message}"):
        load_keras(path)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    marker = tmp_path / "it ran"
    program = f"lambda x: open({str(marker)!r}, 'w') and x"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(eval(program))])
    path = tmp_path / "hostile.keras"
    model.save(path)
    marker.unlink(missing_ok=True)
    assert "cannot load" in refusal(
        capsys, "export", "--model", path, "--output", tmp_path / "m.tflite"
    )
    assert not marker.exists()


def test_a_layer_renamed_since_calibration_keeps_its_calibration(saved, tmp_path):
    def change(config):
        config["config"]["layers"][1]["config"]["name"] = "renamed"

    loaded = load_keras(rewritten(saved, tmp_path / "renamed.keras", change))
    ours, theirs = loaded.get_layer("renamed"), load_keras(saved).get_layer("q")
    assert ours.is_calibrated
    for weight, expected in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    assert ours.table().name == "renamed"


def _focal(truth, prediction):
    return keras.ops.mean((truth - prediction) ** 2)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_loss_of_ones_own_is_not_needed(saved, tmp_path, suffix):
    model = load_keras(saved)
    model.compile("adam", _focal, metrics=[_focal])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert load_keras(path).get_layer("q").is_calibrated


def test_an_optimizer_that_is_unknown_is_not_needed(saved, tmp_path):
    model = load_keras(saved)
    model.compile("adam", "mse")
    model.save(tmp_path / "compiled.keras")

    def change(config):
        config["compile_config"]["optimizer"]["config"]["lr"] = 0.1
        config["compile_config"]["optimizer"]["class_name"] = "Adamantine"

    path = rewritten(tmp_path / "compiled.keras", tmp_path / "old.keras", change)
    assert load_keras(path).get_layer("q").is_calibrated
