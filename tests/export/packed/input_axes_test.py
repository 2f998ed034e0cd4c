"""Packed models whose first layer gives its input an axis of size 1, or drops one."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite, load_packed

layers = keras.layers
MODELS = {
    "added": lambda: [
        keras.Input((12, 4)),
        layers.Conv1D(8, 3, activation="relu"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3),
    ],
    "dropped": lambda: [
        keras.Input((6, 8, 1, 3)),
        layers.Reshape((6, 8, 3)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    ],
}
OTHERS = {
    "added": [(1, 4, 12), (1, 6, 8), (1, 12, 1, 4), (12, 4), (2, 12, 4), (1, 48)],
    "dropped": [(1, 8, 6, 1, 3), (1, 6, 8, 3), (1, 6, 8, 3, 1), (2, 6, 8, 1, 3)],
}


@pytest.fixture(scope="module", params=MODELS, ids=MODELS)
def exported(request, tmp_path_factory):
    """The axis, and a file that begins so."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(MODELS[request.param]())
    x = np.random.default_rng(0).normal(size=(16, *model.input_shape[1:]))
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=6))
    dqa.calibrate(model, x.astype("float32"), verbose=0)
    path = tmp_path_factory.mktemp("axes") / "model.tflite"
    report = export_tflite(model, path, mode="packed", samples=x)
    assert report.max_difference < 0.03 * report.output_range
    return request.param, path


def run_resized(path, shape):
    interpreter = load_packed(path)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, shape)
    interpreter.allocate_tensors()
    interpreter.invoke()


def test_an_input_of_another_shape_with_as_many_values_is_refused(exported):
    axis, path = exported
    for shape in OTHERS[axis]:
        with pytest.raises((RuntimeError, ValueError)):
            run_resized(path, shape)
