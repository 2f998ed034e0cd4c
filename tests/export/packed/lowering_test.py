"""What ops of LiteRT become: one region with its neighbours, and the right values."""

import keras
import numpy as np
import pytest
from packed_runs import relative_error

import dqa_keras as dqa
from dqa_keras.export import export_tflite

layers = keras.layers


def test_hard_swish_is_packed_with_its_convolutions(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="hard_silu")(x)
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
    x = skip = layers.Activation("hard_swish")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="hard_swish")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, skip]))
    model = keras.Model(inputs, layers.Dense(4)(x))
    data = np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=6))
    dqa.calibrate(model, data, verbose=0)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, mode="packed", samples=data)
    assert report.ops == {"DQA": 1}, report.packed.outside
    assert relative_error(model, path, data, threads=2) ** 2 < 1e-3


def squeezed_by_convolutions(x):
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(4, 1, activation="relu")(s)
    return layers.Conv2D(x.shape[-1], 1, activation="hard_sigmoid")(s)


def squeezed_by_reshaped_convolutions(x):
    s = layers.Reshape((1, 1, x.shape[-1]))(layers.GlobalAveragePooling2D()(x))
    s = layers.Conv2D(4, 1, activation="silu")(s)
    return layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(s)


def squeezed_by_dense_layers(x):
    s = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x))
    s = layers.Dense(x.shape[-1], activation="sigmoid")(s)
    return layers.Reshape((1, 1, x.shape[-1]))(s)


def gated_by_convolutions(x):
    return layers.Conv2D(x.shape[-1], 3, padding="same", activation="sigmoid")(x)


@pytest.mark.parametrize(
    "gate",
    [
        squeezed_by_convolutions,
        squeezed_by_reshaped_convolutions,
        squeezed_by_dense_layers,
        gated_by_convolutions,
    ],
)
@pytest.mark.parametrize("merges", [False, True])
def test_gates_are_packed_with_what_they_multiply(tmp_path, gate, merges):
    def build(x):
        x = layers.Conv2D(16, 3, padding="same", activation="silu")(x)
        x = layers.Multiply()([gate(x), x])
        return layers.Conv2D(12, 3, strides=2, activation="tanh")(x)

    report, error = packed(tmp_path / "m.tflite", build, merges)
    assert report.ops == {"DQA": 1}, report.packed.outside
    assert error < 0.03


def test_dense_layers_at_every_pixel_and_groups_of_one_channel_are_packed(tmp_path):
    def build(x):
        x = layers.Conv2D(12, 3, padding="same", activation="relu")(x)
        x = layers.Conv2D(12, 5, padding="same", groups=12, activation="gelu")(x)
        return layers.Dense(20, activation="relu")(layers.Dense(8)(x))

    report, error = packed(tmp_path / "m.tflite", build)
    assert report.ops == {"DQA": 1}, report.packed.outside
    assert error < 0.03


def test_differences_of_activations_are_packed(tmp_path):
    def build(x):
        x = layers.Conv2D(12, 3, activation="relu")(x)
        first = layers.Conv2D(12, 1, activation="relu")(x)
        x = layers.Subtract()([first, layers.Conv2D(12, 1)(x)])
        return layers.ReLU()(layers.Subtract()([x, first]))

    report, error = packed(tmp_path / "m.tflite", build)
    assert report.ops == {"DQA": 1}, report.packed.outside
    assert error < 0.03


@pytest.mark.parametrize("size", [8, 20])
def test_maxima_of_all_pixels_are_packed(tmp_path, size):
    def build(x):
        x = layers.Conv2D(16, 3, padding="same", activation="tanh")(x)
        gate = layers.GlobalMaxPooling2D(keepdims=True)(x)
        return layers.Multiply()([x, layers.Conv2D(16, 1, activation="sigmoid")(gate)])

    report, error = packed(tmp_path / "m.tflite", build, size=size)
    assert report.ops == {"DQA": 1}, report.packed.outside
    assert error < 0.03


@pytest.mark.parametrize("pool", [layers.AveragePooling2D, layers.MaxPooling2D])
def test_a_window_of_the_image_at_every_pixel_is_no_reduction(tmp_path, pool):
    def build(x):
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        return layers.Conv2D(8, 1)(pool(10, strides=1, padding="same")(x))

    report, error = packed(tmp_path / "m.tflite", build, size=10)
    assert report.ops == {"DQA": 1}, report.packed.outside
    assert error < 0.03


def test_no_row_waits_for_a_mean(tmp_path):
    """The arena holds the map once, and few rows of what is made of it."""

    def build(x):
        x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
        return layers.Multiply()([x, squeezed_by_convolutions(x)])

    report, _ = packed(tmp_path / "m.tflite", build, size=64)
    (region,) = report.packed.regions
    assert region.arena < 1.5 * 64 * 64 * 16


def packed(path, build, merges=False, size=16):
    """A small network in packed form, and how far it is from Keras."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3))
    x = layers.GlobalAveragePooling2D()(build(inputs))
    model = keras.Model(inputs, layers.Dense(4)(x))
    data = np.random.default_rng(0).normal(size=(8, size, size, 3)).astype(np.float32)
    config = dqa.DQAConfig(bits=8, extra_bits=0, quantize_merges=merges)
    model = dqa.quantize_model(model, config)
    dqa.calibrate(model, data, verbose=0)
    report = export_tflite(model, path, mode="packed", samples=data)
    return report, relative_error(model, path, data, threads=2)
