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
def coded_skip(tmp_path_factory):
    """A folder with a packed model, its large skip once `raw` and once `coded`.

    And images.
    """
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((96, 96, 1))
    x = skip = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(8)(x)
    for _ in range(6):
        x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.UpSampling2D(8)(x), skip])
    model = keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(x))
    images = np.random.default_rng(0).normal(size=(4, 96, 96, 1)).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(model, images, verbose=0)
    folder = tmp_path_factory.mktemp("coded")
    raw, coded = (
        export_tflite(
            model, folder / skips, mode="packed", samples=images, skips=skips
        ).packed.regions[0]
        for skips in ("raw", "coded")
    )
    assert (raw.coded, coded.coded) == (0, 1)
    assert coded.arena < 0.95 * raw.arena
    return folder, images


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
