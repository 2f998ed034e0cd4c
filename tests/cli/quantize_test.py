"""`dqa quantize`, in-process: what the flags of packed files do."""

import keras
import numpy as np
import pytest

from dqa_keras.cli import main
from dqa_keras.export import read_metadata
from dqa_keras.export.packed import pack


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(3, 3, activation="softmax")(x)
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)).save(
        folder / "model.keras"
    )
    random = np.random.default_rng(0)
    x, y = random.random((12, 6, 6, 1), np.float32), random.integers(0, 3, 12)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    model, data = str(folder / "model.keras"), str(folder / "data.npz")
    return ["quantize", "--model", model, "--data", data]


def code_of(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main.run(list(arguments))
    return exit_.value.code


def test_a_packed_file_is_written_and_measured(arguments, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    assert code_of(*arguments, "--output", str(path), "--mode", "packed") == 0
    printed = capsys.readouterr().out
    assert "packed region: 3 operations, 1 quantizers" in printed
    assert "(SOFTMAX): SOFTMAX is not among the ops" in printed
    assert "packed: 100.0 % of the multiplications in 2 regions; 2 float t" in printed
    assert "accuracy, .tflite:" in printed
    assert len(pack.read_plans(path.read_bytes())) == 2


def test_strict_names_what_a_region_cannot_hold(arguments, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    flags = ("--output", str(path), "--mode", "packed", "--strict")
    assert code_of(*arguments, *flags) == 2
    error = capsys.readouterr().err
    assert "strict: every op must run on packed" in error
    assert "in 2 regions; 2 float tensors left, the largest of " in error
    assert not list(tmp_path.iterdir())


def test_strict_is_of_packed_files(arguments, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    assert code_of(*arguments, "--output", str(path), "--strict") == 2
    assert "strict=True needs mode='packed'" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("mode", ["builtin", "packed"])
def test_a_budget_decides_n_and_m(mode, arguments, tmp_path):
    path = tmp_path / "model.tflite"
    flags = ("--output", str(path), "--mode", mode, "--budget_bits", "2.5")
    assert code_of(*arguments, *flags, "--ranking", "fisher") == 0
    (table, *_) = read_metadata(path).tables.values()
    assert table.bits + table.mask.mean() * table.extra_bits <= 2.5
    config = read_metadata(path).config["layers"][0]["config"]
    assert (config["budget_bits"], config["ranking"]) == (2.5, "fisher")


def test_reconstruct_changes_weights(arguments, tmp_path, capsys):
    weights = []
    for flags in ((), ("--reconstruct", "--checkpoint", str(tmp_path / "c"))):
        path = tmp_path / "model.keras"
        flags = (*flags, "--output", str(path), "--bits", "1", "--extra_bits", "0")
        assert code_of(*arguments, *flags) == 0
        loaded = keras.models.load_model(path)
        convolutions = [x for x in loaded.layers if isinstance(x, keras.layers.Conv2D)]
        weights.append([w for x in convolutions for w in x.get_weights()])
    same = [np.array_equal(*pair) for pair in zip(*weights, strict=True)]
    assert not all(same)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_mean_and_std_are_recorded(arguments, tmp_path):
    path = tmp_path / "model.tflite"
    flags = ("--output", str(path), "--mean=0.5", "--std=0.25")
    assert code_of(*arguments, *flags) == 0
    assert read_metadata(path).config["input"] == {"mean": [0.5], "std": [0.25]}


@pytest.mark.parametrize("flags", [("--mean=1,2", "--std=1,2"), ("--mean=1",)])
def test_a_wrong_normalization_is_found_before_the_work(
    arguments, tmp_path, capsys, monkeypatch, flags
):
    monkeypatch.delattr("dqa_keras.calibrate")  # it is not reached
    path = tmp_path / "model.tflite"
    assert code_of(*arguments, "--output", str(path), *flags) == 2
    assert not path.exists()
    assert capsys.readouterr().err.count("\n") == 1
