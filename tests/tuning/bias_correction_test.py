"""Bias correction against means by hand."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.layers import quantizer_layers


@pytest.fixture(scope="module")
def network():
    """A bias, a batch normalization without one, an activation inside its layer."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.Conv2D(5, 3, use_bias=False, name="bare"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Conv2D(4, 3, activation="relu", name="fused"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype(np.float32)


def quantized(network, data):
    model = dqa.quantize_model(network, dqa.DQAConfig(bits=2, extra_bits=1))
    dqa.calibrate(model, data, verbose=0)
    return model


def result(model, name, x):
    """What a layer gives, before the activation inside it."""
    layer = model.get_layer(name)
    kept = layer.activation if hasattr(layer, "activation") else None
    if kept is not None:
        layer.activation = keras.activations.linear
    output = keras.Model(model.inputs, layer.output)(x, training=False)
    if kept is not None:
        layer.activation = kept
    return np.asarray(output)


def test_the_mean_error_of_every_layer_is_gone(network, data):
    model = quantized(network, data)
    names = ["norm", "fused", "head"]
    expected = {name: result(network, name, data) for name in names}

    def errors():
        return {
            name: np.abs(
                (result(model, name, data) - expected[name]).reshape(
                    -1, expected[name].shape[-1]
                ).mean(0)
            ).max()
            for name in names
        }  # fmt: skip

    before = errors()
    assert dqa.correct_bias(model, network, data) == names
    after = errors()
    assert min(before.values()) > 1e-3
    assert max(after.values()) < 1e-5


def test_a_second_correction_finds_nothing(network, data):
    model = quantized(network, data)
    dqa.correct_bias(model, network, data)
    weights = [w.numpy() for w in model.weights]
    dqa.correct_bias(model, network, data)
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_allclose(before, after.numpy(), atol=1e-5)


def test_the_float_model_and_the_scales_stay(network, data):
    model = quantized(network, data)
    weights = [w.numpy() for w in network.weights]
    scales = [layer.scale.numpy() for layer in quantizer_layers(model)]
    dqa.correct_bias(model, network, data)
    for before, after in zip(weights, network.weights, strict=True):
        np.testing.assert_array_equal(before, after.numpy())
    now = [layer.scale.numpy() for layer in quantizer_layers(model)]
    for before, after in zip(scales, now, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_layer_that_is_called_twice_keeps_its_bias():
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    x = keras.layers.Dense(4, activation="relu", name="first")(inputs)
    network = keras.Model(inputs, shared(shared(x)))
    x = np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32)
    model = dqa.quantize_model(network, dqa.DQAConfig(bits=2, extra_bits=1))
    dqa.calibrate(model, x, verbose=0)
    assert dqa.correct_bias(model, network, x) == []


def test_what_is_wrong_is_named(network, data):
    model = dqa.quantize_model(network, dqa.DQAConfig(bits=2, extra_bits=1))
    with pytest.raises(ValueError, match="'first_dqa' is not calibrated"):
        dqa.correct_bias(model, network, data)
    dqa.calibrate(model, data, verbose=0)
    other = keras.Sequential(
        [keras.Input((8, 8, 2), name="x"), keras.layers.Conv2D(2, 3, name="first")],
        name="other",
    )
    with pytest.raises(ValueError, match="'other', which has no layer like 'first'"):
        dqa.correct_bias(model, other, data)
