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
    "flattened": lambda: [
        keras.Input((6, 8)),
        layers.Flatten(),
        layers.Dense(8, activation="relu"),
        layers.Dense(3),
    ],
    "patches": lambda: [
        keras.Input((8, 8, 3)),
        layers.Reshape((2, 4, 24)),
        layers.Conv2D(8, 1, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    ],
    "computed": lambda: [
        keras.Input((8, 8, 3)),
        layers.Rescaling(2.0, 1.0),
        layers.Permute((2, 1, 3)),
        layers.Reshape((16, 4, 3)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    ],
    "parted": lambda: [
        keras.Input((4, 2, 4, 3)),
        layers.Reshape((8, 4, 3)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(3),
    ],
}
OTHERS = {
    "flattened": [
        (1, 8, 6),
        (1, 48),
        (1, 4, 12),
        (2, 24),
        (48,),
        (2, 6, 4),
        (1, 2, 24),
    ],
    "patches": [(1, 4, 16, 3), (1, 16, 4, 3), (1, 8, 3, 8), (1, 192), (4, 4, 4, 3)],
    "computed": [(1, 4, 16, 3), (1, 16, 4, 3), (1, 2, 32, 3), (2, 8, 4, 3)],
    "parted": [(1, 2, 4, 4, 3), (1, 8, 4, 3), (1, 4, 4, 2, 3), (2, 2, 2, 4, 3)],
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


@pytest.mark.parametrize("bytes_in", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_input_of_its_own_shape_runs(bytes_in, threads, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(MODELS["patches"]())
    x = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype("float32")
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=6))
    dqa.calibrate(model, x, verbose=0)
    path = tmp_path / "model.tflite"
    kind = "uint8" if bytes_in else "float32"
    export_tflite(model, path, mode="packed", samples=x, inputs=kind)
    interpreter = load_packed(path, num_threads=threads)
    (entry,) = interpreter.get_input_details()
    assert entry["dtype"] == np.dtype(kind)
    interpreter.resize_tensor_input(entry["index"], (1, 8, 8, 3))
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], x[:1].astype(kind))
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = np.asarray(model(x[:1]))
    np.testing.assert_allclose(outputs, expected, atol=0.05 * np.abs(expected).max())
