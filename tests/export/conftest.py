"""One small model, calibrated and exported once for all tests of export."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite


@pytest.fixture(scope="session")
def small_cnn():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 12, 1), name="picture"),
            layers.Conv2D(8, 3, activation="relu", name="conv1"),
            layers.Conv2D(6, 3, padding="same", name="conv2"),
            layers.BatchNormalization(name="norm2"),
            layers.LeakyReLU(name="leaky2"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="small_cnn",
    )


@pytest.fixture(scope="session")
def pictures():
    return np.random.default_rng(0).random((32, 12, 12, 1), np.float32)


@pytest.fixture(scope="session")
def quantized_cnn(small_cnn, pictures):
    quantized = dqa.quantize_model(small_cnn, dqa.DQAConfig(bits=3, extra_bits=2))
    dqa.calibrate(quantized, pictures, verbose=0)
    return quantized


@pytest.fixture(scope="session")
def exported(quantized_cnn, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.tflite"
    export_tflite(
        quantized_cnn,
        path,
        samples=pictures[:2],
        labels=["cat", "dog", "owl"],
        normalization=([0.5], [0.25]),
    )
    return path
