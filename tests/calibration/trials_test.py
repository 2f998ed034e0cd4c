"""Trials against the model run whole, by hand."""

import keras
import numpy as np
import pytest
import worker

import dqa_keras as dqa
from dqa_keras.calibration import partial_run, trials
from dqa_keras.calibration.checkpoint import Progress
from dqa_keras.calibration.trials import Trials
from dqa_keras.layers import quantizer_layers

OPTIONS = {"bits": 2, "extra_bits": 2, "signed": False}


def branches():
    """Skips across quantizers, a model inside the model, dropout and two outputs."""
    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            dqa.layers.DQA(name="inner", **OPTIONS),
            layers.Dropout(0.5),
        ]
    )
    inputs = keras.Input((6, 6, 3))
    raw = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = dqa.layers.DQA(name="first", **OPTIONS)(raw)
    x = layers.Concatenate()([inner(x), raw, x])
    x = layers.Conv2D(5, 3, activation="relu")(x)
    x = dqa.layers.DQA(name="last", **OPTIONS)(x)
    pooled = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, [layers.Dense(2)(pooled), 2 * x])


class Subclassed(keras.Model):
    """Its calls are out of sight."""

    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(4, 3, activation="relu")
        self.quantizer = dqa.layers.DQA(name="only", **OPTIONS)
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(self.quantizer(self.conv(x)))


def inside():
    """A model with a single layer in sight, which is a subclassed model."""
    inputs = keras.Input((6, 6, 3))
    return keras.Model(inputs, Subclassed()(inputs))


def shared():
    """One quantizer behind two convolutions."""
    inputs = keras.Input((6, 6, 3))
    quantizer = dqa.layers.DQA(name="shared", **OPTIONS)
    x, y = (
        quantizer(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
        for _ in range(2)
    )
    return keras.Model(inputs, keras.layers.Add()([x, y]))


def by_hand(model, layer, mask, scale, x):
    """The squared distance from the unquantized outputs, of the whole model."""
    expected = keras.tree.flatten(model(x, training=False))
    layer.mask.assign(mask)
    layer.set_scale(scale)
    layer.calibrated.assign(True)
    outputs = keras.tree.flatten(model(x, training=False))
    layer.calibrated.assign(False)
    return sum(
        np.sum((np.asarray(y, np.float64) - np.asarray(e, np.float64)) ** 2)
        for y, e in zip(outputs, expected, strict=True)
    )


@pytest.mark.parametrize("make", [branches, Subclassed, inside, shared])
@pytest.mark.parametrize("values", [1, 2**22])  # one image and one mask at a time, all
def test_trials_are_runs_of_the_whole_model(monkeypatch, make, values):
    monkeypatch.setattr(partial_run, "_VALUES", values)
    keras.utils.set_random_seed(3)
    model = make()
    random = np.random.default_rng(1)
    x = random.random((7, 6, 6, 3), np.float32)
    model(x)
    tried = Trials(model, x)
    for layer in reversed(quantizer_layers(model)):  # in any order
        channels = layer.scale.shape[0]
        masks = random.random((5, channels)) < 0.5
        scales = random.uniform(0.05, 0.5, masks.shape).astype(np.float32)
        done = []
        errors = tried.errors(layer, masks, scales, done.append)
        expected = [
            by_hand(model, layer, mask, scale, x)
            for mask, scale in zip(masks, scales, strict=True)
        ]
        np.testing.assert_allclose(errors, expected, rtol=1e-4)
        assert sum(done) == 5
        assert not layer.is_calibrated


def test_only_what_lies_behind_a_quantizer_runs():
    ran = []

    class Counted(keras.layers.Layer):
        def call(self, x):
            ran.append(self.name)
            return x

    inputs = keras.Input((4,))
    x = Counted(name="before")(inputs)
    x = dqa.layers.DQA(name="q", **OPTIONS)(x)
    model = keras.Model(inputs, Counted(name="behind")(x))
    ran.clear()
    runs = partial_run.PartialRun(model, np.ones((2, 4), np.float32))
    (layer,) = quantizer_layers(model)
    (inputs,) = runs.start_at(layer)
    ran.clear()
    runs.outputs(0, inputs)
    assert "before" not in ran


class Broken(Exception):
    pass


@pytest.mark.parametrize("at", [1, 10, 30])
@pytest.mark.parametrize("ranking", ["greedy", "mse"])
def test_trials_go_on_where_they_were_interrupted(monkeypatch, tmp_path, ranking, at):
    # One mask and a quarter of the images at a time.
    monkeypatch.setattr(partial_run, "_VALUES", 2**10)
    clipping = "output" if ranking == "mse" else "mse"
    config = dqa.DQAConfig(bits=3, extra_bits=2, ranking=ranking, clipping=clipping)
    measure = trials._squared_distance
    measured = []

    def calibrated(until=None, checkpoint=None):
        def breaking(*arguments):
            if len(measured) == until:
                raise Broken
            measured.append(arguments)
            return measure(*arguments)

        monkeypatch.setattr(trials, "_squared_distance", breaking)
        measured.clear()
        model = dqa.quantize_model(worker.network(), config)
        dqa.calibrate(model, worker.images(), verbose=0, checkpoint=checkpoint)
        return worker.state(model)

    expected = calibrated()
    needed = len(measured)
    with pytest.raises(Broken):
        calibrated(until=at, checkpoint=tmp_path / "c")
    resumed = calibrated(checkpoint=tmp_path / "c")
    assert len(measured) == needed - at // 4 * 4
    assert resumed.keys() == expected.keys()
    for name, array in expected.items():
        assert resumed[name].tobytes() == array.tobytes(), name
    assert list(tmp_path.iterdir()) == []


def test_what_trials_found_is_not_taken_for_what_others_would():
    keras.utils.set_random_seed(3)
    model = branches()
    random = np.random.default_rng(1)
    x = random.random((2, 6, 6, 3), np.float32)
    first, second, *_ = quantizer_layers(model)
    masks = np.ones((1, first.scale.shape[0]), bool)
    scales = np.full(masks.shape, 0.1, np.float32)
    progress = Progress()

    def known(layer=first, masks=masks, scales=scales, x=x):
        before = len(progress.errors)
        Trials(model, x, progress=progress).errors(layer, masks, scales)
        return len(progress.errors) == before

    assert not known()
    assert known()
    assert not known(masks=~masks)
    assert not known(scales=2 * scales)
    assert not known(x=2 * x)
    other = np.ones((1, second.scale.shape[0]), bool)
    assert not known(second, other, np.full(other.shape, 0.1, np.float32))
    first.signed.assign(True)
    assert not known()
