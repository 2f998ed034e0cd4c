"""What ops of LiteRT become: hard_silu is one op, in a region with its neighbours."""

import keras
import numpy as np

import dqa_keras as dqa
from dqa_keras.export import export_tflite, load_packed

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
    interpreter = load_packed(path, num_threads=2)
    interpreter.allocate_tensors()
    (source,), (target,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    outputs = []
    for image in data:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    expected = np.asarray(model(data))
    error = np.mean((outputs - expected) ** 2) / np.mean(expected**2)
    assert error < 1e-3
