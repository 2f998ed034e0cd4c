"""Reconstruction: layers of every kind, images it has not seen, where it stopped."""

import keras
import numpy as np
import pytest
from keras import layers

import dqa_keras as dqa
from dqa_keras.layers import quantizer_layers
from dqa_keras.tuning import reconstruction


def images(count, seed=0, size=12):
    """Random images that are smooth, as real ones are."""
    random = np.random.default_rng(seed)
    coarse = random.random((count, size // 3, size // 3, 3))
    return np.repeat(np.repeat(coarse, 3, 1), 3, 2).astype(np.float32)


def network(seed=0):
    """A residual network with batch norms and a depthwise convolution."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    x = layers.Add()([x, layers.Conv2D(16, 1, name="project")(y)])
    x = layers.Conv2D(32, 3, 2, padding="same", activation="relu", name="last")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(5, name="head")(x))
    norm = model.get_layer("norm")
    random = np.random.default_rng(seed)
    norm.set_weights([random.random(16) + 0.5 for _ in range(4)])
    return model


def quantized_network(model, **config):
    quantized = dqa.quantize_model(model, dqa.DQAConfig(**config))
    dqa.calibrate(quantized, images(64), verbose=0)
    return quantized


def error(quantized, model, x):
    expected = model.predict(x, verbose=0)
    distance = np.square(quantized.predict(x, verbose=0) - expected).sum()
    return distance / np.square(expected - expected.mean(0)).sum()


@pytest.mark.parametrize(
    "config",
    [
        {"bits": 2, "extra_bits": 0},
        {"budget_bits": 2.2},
        {"budget_bits": 1.8, "entropy": "all"},
        {"bits": 2, "method": "noisyquant"},
    ],
)
def test_images_that_it_has_not_seen_come_nearer(config):
    model = network()
    quantized = quantized_network(model, **config)
    unseen = images(64, seed=1)
    before = error(quantized, model, unseen)
    stored = dqa.storage_bits(quantized, unseen).total
    changed = dqa.reconstruct(quantized, model, images(256), verbose=0)
    assert set(changed) <= {"dw", "project", "last", "head"}
    assert "project" in changed
    assert error(quantized, model, unseen) < 0.7 * before
    assert dqa.storage_bits(quantized, unseen).total == pytest.approx(stored, rel=0.03)
    # The float model is another one's: it stays as it is.
    np.testing.assert_array_equal(
        model.get_layer("head").kernel, network().get_layer("head").kernel
    )


LAYERS = {
    "strided": layers.Conv2D(8, 3, 2, padding="same"),
    "valid": layers.Conv2D(8, (3, 2)),
    "even": layers.Conv2D(8, 4, 2, padding="same"),
    "dilated": layers.Conv2D(8, 3, padding="same", dilation_rate=2),
    "groups": layers.Conv2D(8, 3, groups=2, padding="same"),
    "activation": layers.Conv2D(8, 1, activation="tanh"),
    "depthwise": layers.DepthwiseConv2D((3, 2), padding="same"),
    "multiplied": layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2),
    "dense": layers.Dense(8),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_of_every_kind_of_layer_are_found_again(kind):
    keras.utils.set_random_seed(0)
    layer = LAYERS[kind]
    model = keras.Sequential(
        [
            keras.Input((12, 12, 4)),
            layers.ReLU(),
            type(layer).from_config({**layer.get_config(), "name": "layer"}),
        ]
    )
    x = np.random.default_rng(0).random((64, 12, 12, 4), np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=8, extra_bits=0))
    dqa.calibrate(quantized, x, verbose=0)
    lost = quantized.get_layer("layer")
    lost.set_weights([np.roll(w, 1) + 0.1 for w in lost.get_weights()])
    assert error(quantized, model, x) > 0.05
    assert dqa.reconstruct(quantized, model, x, verbose=0) == ["layer"]
    assert error(quantized, model, x) < 1e-3


def test_the_same_seed_gives_the_same_weights():
    model = network()
    weights = []
    for seed in (0, 0, 1):
        quantized = quantized_network(model, bits=2)
        dqa.reconstruct(quantized, model, images(256), seed=seed, verbose=0)
        weights.append(np.concatenate([w.ravel() for w in quantized.get_weights()]))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.any(weights[0] != weights[2])


class Stopped(Exception):
    pass


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    model = network()
    whole = quantized_network(model, bits=2)
    expected = dqa.reconstruct(whole, model, images(64), verbose=0)
    quantized = quantized_network(model, bits=2)
    before = quantized.get_weights()
    fitted = []
    fit = reconstruction._Work._fit

    def counted(self, block, number, *states):
        fitted.append(number)
        if len(fitted) == 5:
            raise Stopped
        return fit(self, block, number, *states)

    monkeypatch.setattr(reconstruction._Work, "_fit", counted)
    path = tmp_path / "r.npz"
    with pytest.raises(Stopped):
        dqa.reconstruct(quantized, model, images(64), verbose=0, checkpoint=path)
    for weight, saved in zip(quantized.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, saved)
    assert path.exists()
    with pytest.raises(ValueError, match="other data"):
        dqa.reconstruct(quantized, model, images(65), verbose=0, checkpoint=path)
    fitted[:] = [0] * 10
    names = dqa.reconstruct(quantized, model, images(64), verbose=0, checkpoint=path)
    assert len(fitted) == 10 + 2  # the first three layers were done
    assert names == expected
    for weight, other in zip(quantized.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)
    assert not path.exists()


def test_what_cannot_be_reconstructed_is_refused(tmp_path):
    model = network()
    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    with pytest.raises(ValueError, match="is not calibrated"):
        dqa.reconstruct(quantized, model, images(64))
    quantized = quantized_network(model)
    with pytest.raises(ValueError, match=r"at least 8 images\. Received: 7"):
        dqa.reconstruct(quantized, model, images(7), verbose=0)
    other = keras.Sequential([keras.Input((12, 12, 3)), layers.Dense(2)])
    with pytest.raises(ValueError, match="has no layer like 'stem'"):
        dqa.reconstruct(quantized, other, images(8), verbose=0)
    (tmp_path / "r.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a checkpoint of a reconstruction"):
        dqa.reconstruct(
            quantized, model, images(8), verbose=0, checkpoint=tmp_path / "r.npz"
        )


def test_shared_layers_stay_as_they_are():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    shared = layers.Dense(8, name="shared")
    x = layers.ReLU()(shared(layers.ReLU()(shared(inputs))))
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    data = np.random.default_rng(0).random((64, 8), np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=2))
    dqa.calibrate(quantized, data, verbose=0)
    assert len(quantizer_layers(quantized)) == 2
    assert dqa.reconstruct(quantized, model, data, verbose=0) == ["head"]
