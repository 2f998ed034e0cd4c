import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite

RANDOM = np.random.default_rng(0)
A, B = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(6, 4))
FORMS = {
    "list": [A, B],
    "by name": {"b": B, "a": A},
    "representative_dataset": lambda: ([A[k : k + 1], B[k : k + 1]] for k in range(6)),
    "generator of dicts": ({"b": B, "a": A} for _ in range(1)),
}


@pytest.fixture(scope="module")
def two_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()([a, b]))
    model = keras.Model([a, b], keras.layers.Dense(2)(x))
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    dqa.calibrate(quantized, [A, B], verbose=0)
    return quantized


@pytest.mark.parametrize("samples", FORMS.values(), ids=FORMS)
def test_samples_come_as_calibration_data_does(two_inputs, samples, tmp_path):
    report = export_tflite(two_inputs, tmp_path / "m.tflite", samples=samples)
    assert report.quantizers == 1


@pytest.mark.parametrize("samples", [None, 1, 4])
def test_a_declared_batch_of_one_takes_any_number_of_samples(samples, tmp_path):
    inputs = keras.Input(batch_shape=(1, 8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    images = RANDOM.normal(size=(8, 8, 8, 3)).astype(np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    dqa.calibrate(quantized, images, verbose=0)
    some = None if samples is None else images[:samples]
    assert export_tflite(quantized, tmp_path / "m.tflite", samples=some).quantizers == 1
