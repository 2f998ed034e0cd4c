"""Arguments of `export_tflite`, good, bad and absurd: a file, or one clear line."""

import itertools
from pathlib import Path

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

import dqa_keras as dqa
from dqa_keras.export import ExportReport, export_tflite

# Measuring what is covered takes longer than the tests themselves.
pytestmark = pytest.mark.no_cover

layers = keras.layers
X = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
OLD = b"what was there before"
NOTHING = [None, 0, -1, True, "", "x", b"x", [], {}, (), object(), float("nan")]

BAD = {
    "path": [
        None, 3, b"m.tflite", "", ".", "..", "no/where.tflite", "nul\0.tflite",
        "x" * 300, "old.tflite/in.tflite", [], object(), "old.tflite",
        Path("new.tflite"),
    ],
    "mode": [*NOTHING, "packed", "PACKED", ["builtin"]],
    "strict": [*NOTHING, "yes"],
    "inputs": [*NOTHING, "uint8", "int8"],
    "outputs": [*NOTHING, "uint8"],
    "skips": [*NOTHING, "coded", "raw "],
    "arena_kib": [*NOTHING, 96, 1e-3, 1e300, "96", float("inf"), 10**400],
    "weights": [*NOTHING, "float16", "int8", "int4"],
    "samples": [
        *NOTHING, X[:1], X[0], X[:, :3], X[:0], X.tolist(), X.astype(int), X * np.nan,
        X / 0, 1e300 * X.astype(float), X.astype(complex), X.astype(str),
        X.astype(object), np.full((2, 4), None), [X], [X, X], {"x": X}, {"in": X},
        {"in": None}, (X, X), iter(X), X[..., None], keras.ops.convert_to_tensor(X),
    ],
    "input_shape": [
        *NOTHING, (4,), (1, 4), (None, 4), (5,), (4, 4), (4.0,), ("4",), [4], [(4,)],
        (-4,), (10**12,), np.array([4]), {"in": (4,)},
    ],
    "normalization": [
        *NOTHING, ([1], [1]), ([1] * 4, [2] * 4), ([1] * 3, [1] * 3), ([0], [0]),
        ([1], [1], [1]), "ab", ([None], [1]), (X, X), ({1}, {1}), ([1e300], [1]),
    ],
    "labels": [
        *NOTHING, ["a", "b", "c"], [1, 2, 3], "abc", {"a", "b", "c"}, ["a", "b"],
        ["a\n", "b", "c"], [None] * 3, np.arange(3), np.eye(3), range(3), iter("abc"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def models():
    """A calibrated model, and what cannot be exported."""
    keras.utils.set_random_seed(0)
    stack = [keras.Input((4,), name="in"), layers.Dense(6, activation="relu")]
    plain = keras.Sequential([*stack, layers.Dense(3)])
    uncalibrated = dqa.quantize_model(plain, dqa.DQAConfig(bits=4))
    model = dqa.quantize_model(plain, dqa.DQAConfig(bits=4))
    dqa.calibrate(model, X, verbose=0)
    return model, [plain, uncalibrated, keras.Sequential([layers.Dense(3)])]


numbers = itertools.count()


@hypothesis.settings(
    max_examples=50, deadline=None, derandomize=True, database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
@hypothesis.given(st.data())
def test_a_file_or_one_clear_line(models, tmp_path_factory, monkeypatch, data):
    folder = tmp_path_factory.mktemp(f"arguments{next(numbers)}")
    monkeypatch.chdir(folder)
    (folder / "old.tflite").write_bytes(OLD)
    model, others = models
    names = data.draw(st.lists(st.sampled_from(sorted(BAD)), max_size=3, unique=True))
    options = {"path": "old.tflite", "samples": X, "mode": "builtin"}
    options |= {name: data.draw(st.sampled_from(BAD[name])) for name in names}
    if data.draw(st.integers(0, 9)) == 0:
        model = data.draw(st.sampled_from([*others, *NOTHING]))
    path = options.pop("path")
    try:
        report = export_tflite(model, path, **options)
    except (ValueError, TypeError) as error:
        check_refusal(error, folder)
    else:
        assert isinstance(report, ExportReport)
        assert Path(path).stat().st_size == report.size
        kept = {"old.tflite", Path(path).name}
        assert {entry.name for entry in folder.iterdir()} == kept


def check_refusal(error, folder):
    assert str(error)
    assert "\n" not in str(error)
    assert {entry.name for entry in folder.iterdir()} == {"old.tflite"}
    assert (folder / "old.tflite").read_bytes() == OLD


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (X * np.nan, "'in' must be finite"),
        (X / 0, "'in' must be finite"),
        (1e300 * X.astype(float), "within the range of float32"),
        (X.astype(complex), "must be numbers. Received: complex"),
        (X[:0], "at least one input"),
    ],
)
def test_samples_are_checked_before_the_work(samples, message, models, tmp_path):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        export_tflite(models[0], tmp_path / "m.tflite", samples=samples)


def test_samples_by_name_reach_the_inputs_of_a_list(tmp_path):
    first, second = keras.Input((4,), name="z"), keras.Input((2,), name="a")
    x = layers.Concatenate()([first, second])
    model = keras.Model([first, second], layers.Dense(2)(layers.Dense(6, "relu")(x)))
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    dqa.calibrate(model, [X, X[:, :2]], verbose=0)
    samples = {"a": X[:, :2], "z": X}
    assert export_tflite(model, tmp_path / "m", samples=samples).max_difference < 1e-5
