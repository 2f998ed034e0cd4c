"""Trials against the model run whole, by hand."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras import resuming
from dqa_keras.layers import quantizer_layers
from dqa_keras.trials import Trials

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
    monkeypatch.setattr(resuming, "_VALUES", values)
    keras.utils.set_random_seed(3)
    model = make()
    random = np.random.default_rng(1)
    x = random.random((7, 6, 6, 3), np.float32)
    model(x)
    trials = Trials(model, x)
    for layer in reversed(quantizer_layers(model)):  # in any order
        channels = layer.scale.shape[0]
        masks = random.random((5, channels)) < 0.5
        scales = random.uniform(0.05, 0.5, masks.shape).astype(np.float32)
        done = []
        found = trials.errors(layer, masks, scales, done.append)
        expected = [
            by_hand(model, layer, mask, scale, x)
            for mask, scale in zip(masks, scales, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
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
    runs = resuming.Resuming(model, np.ones((2, 4), np.float32))
    (layer,) = quantizer_layers(model)
    (inputs,) = runs.go_to(layer)
    ran.clear()
    runs.outputs(0, inputs)
    assert "before" not in ran
