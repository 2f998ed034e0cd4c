"""What one Keras backend computes: codes, calibrations and a training step, as an .npz.

    KERAS_BACKEND=jax python tests/backends/states.py jax.npz

Activations are whole eighths and weights whole quarters, so that a convolution's sum
is exact in float32 whatever the order of its terms: from there on the backends see the
same activations, and every code and every statistic must be the same to the bit.
"""

import sys

import keras
import numpy as np

import dqa_keras as dqa
from dqa_keras.layers import QuantizationParameters, quantizer_layers

CONFIGS = {
    "default": dqa.DQAConfig(bits=3, extra_bits=2),
    "direct": dqa.DQAConfig(bits=3, method="direct"),
    "noisyquant": dqa.DQAConfig(bits=3, method="noisyquant"),
    "paper": dqa.DQAConfig.paper(bits=3, important_fraction=0.5),
    "maximum": dqa.DQAConfig(bits=2, clipping="max", granularity="tensor"),
    "percentile": dqa.DQAConfig(bits=5, clipping="percentile"),
    "fisher": dqa.DQAConfig(bits=3, ranking="fisher"),
    "budget": dqa.DQAConfig(budget_bits=3.0),
}


def network() -> keras.Model:
    """A convolution, an addition and two activations of exact values."""
    random = np.random.default_rng(3)
    inputs = keras.Input((6, 6, 4))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(inputs)
    y = keras.layers.Conv2D(8, 1, name="b")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Activation("linear", name="c")(x)
    outputs = keras.layers.Dense(3, name="d")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        layer.set_weights(
            [random.integers(-4, 5, w.shape) / 4 for w in layer.get_weights()]
        )
    return model


def codes() -> dict[str, np.ndarray]:
    """Codes and values of each layer on one tensor, ties and infinities included."""
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 6)).astype(np.float32)
    x[0, 0] = np.arange(-12, 12).reshape(4, 6) / 16  # halves of the step below
    x[0, 1, 0] = [0.0, -0.0, 1e30, -1e30, np.inf, -np.inf]
    state = {}
    for layer in (
        dqa.layers.DQA(bits=3, extra_bits=2, name="dqa"),
        dqa.layers.Direct(bits=4, name="direct"),
        dqa.layers.NoisyQuant(bits=4, name="noisyquant"),
    ):
        layer.build(x.shape)
        for signed in (False, True):
            layer.assign(
                QuantizationParameters(
                    bits=layer.bits,
                    extra_bits=layer.extra_bits,
                    scale=np.float32([0.125, 0.125, 0.3, 0.07, 0.2, 1 / 3]),
                    mask=np.arange(6) % 2 == (0 if layer.extra_bits else 2),
                    signed=signed,
                    residual_counts=np.arange(2**layer.extra_bits),
                    base_counts=np.arange(2**layer.bits),
                    importance=np.arange(6.0),
                    sqnr=1.0,
                )
            )
            for name, value in (
                ("codes", layer.codes(x)),
                ("inference", layer(x)),
                ("training", layer(x, training=True)),
            ):
                key = f"{layer.name} signed={signed} {name}"
                state[key] = keras.ops.convert_to_numpy(value)
    return state


def calibrations() -> dict[str, np.ndarray]:
    """Every weight of every quantizer after calibration, and measured bits."""
    images = np.random.default_rng(1).integers(-16, 17, (70, 6, 6, 4)) / 8
    images = images.astype(np.float32)
    state = {}
    for name, config in CONFIGS.items():
        model = dqa.quantize_model(network(), config)
        dqa.calibrate(model, images, verbose=0)
        for layer in quantizer_layers(model):
            for weight in layer.weights:
                key = f"{name} {layer.name} {weight.name}"
                state[key] = keras.ops.convert_to_numpy(weight)
        state[f"{name} bits"] = np.array(dqa.storage_bits(model, images).total)
    return state


def training() -> dict[str, np.ndarray]:
    """The loss before and after training through the quantizers."""
    images = np.random.default_rng(1).integers(-16, 17, (64, 6, 6, 4)) / 8
    model = dqa.quantize_model(network(), CONFIGS["default"])
    dqa.calibrate(model, images, verbose=0)
    targets = np.asarray(images.mean((1, 2)) @ np.ones((4, 3)))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    losses = model.fit(images, targets, epochs=5, verbose=0).history["loss"]
    return {"training losses": np.array([losses[0], losses[-1]])}


if __name__ == "__main__":
    np.savez(sys.argv[1], **codes(), **calibrations(), **training())
