"""What was found of one small trained model; several tests look at it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras.report.findings import examine


@pytest.fixture(scope="session")
def examined():
    """A calibrated model with labels it mostly gets right, its data, the findings."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 240)
    x = random.normal(0, 0.4, (240, 8, 8, 1)).astype(np.float32)
    for image, kind in zip(x, y, strict=True):
        image[kind::3] += 1  # three kinds of stripes under noise
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu", name="first"),
            layers.Conv2D(8, 3, activation="tanh", name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="stripes",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:160], y[:160], epochs=8, verbose=0)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=3, extra_bits=2))
    dqa.calibrate(quantized, x[:160], verbose=0)
    training = tf.data.Dataset.from_tensor_slices(x[:160]).batch(32)
    test = tf.data.Dataset.from_tensor_slices((x[160:], y[160:])).batch(32)
    return model, quantized, (x, y), examine(quantized, training, test)
