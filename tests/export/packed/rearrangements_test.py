"""Slices, splits and shuffles of a network run inside its region."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras.export import export_tflite, load_packed
from dqa_keras.export.packed.pack import read_plans
from dqa_keras.export.plan.reference import Reference

layers = keras.layers


def shuffle(x):
    x = keras.ops.reshape(x, (-1, 6, 8, 2, 6))
    return keras.ops.reshape(keras.ops.transpose(x, (0, 1, 2, 4, 3)), (-1, 6, 8, 12))


def torch_unshuffle(x):
    x = keras.ops.reshape(x, (-1, 3, 2, 4, 2, 12))
    x = keras.ops.transpose(x, (0, 1, 3, 5, 2, 4))
    return keras.ops.reshape(x, (-1, 3, 4, 48))


def torch_shuffle(x):
    x = keras.ops.reshape(x, (-1, 6, 8, 3, 2, 2))
    x = keras.ops.transpose(x, (0, 1, 4, 2, 5, 3))
    return keras.ops.reshape(x, (-1, 12, 16, 3))


def crossed(x):
    first, second = tf.split(x, 2, axis=-1)
    return tf.concat([second, first], -1)


def uneven(x):
    parts = tf.split(x, [3, 4, 5], axis=-1)
    return tf.concat([parts[2], parts[0]], -1)


def halves(x):
    return tf.concat([shuffle(x)[..., 6:], x[..., ::3]], -1)


MOVES = {
    "crop": lambda x: x[:, 1:-2, 3:],
    "shifted": lambda x: tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]])[:, 1:, 1:],
    "strided": lambda x: x[:, 1::2, ::3, 2:9],
    "backwards": lambda x: x[..., ::-1],
    "split": crossed,
    "parts": uneven,
    "shuffle": shuffle,
    "half of a shuffle": halves,
    "depth to space": lambda x: tf.nn.depth_to_space(x, 2),
    "space to depth": lambda x: tf.nn.space_to_depth(x, 2),
    "pixel shuffle": torch_shuffle,
    "pixel unshuffle": torch_unshuffle,
}


@pytest.mark.parametrize("place", ["inside", "input", "output"])
@pytest.mark.parametrize("names", [list(MOVES)[:6], list(MOVES)[6:]])
def test_what_only_moves_values_is_inside(names, place, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8, 12))
    outputs = []
    for name in names:
        x = inputs
        if place == "input":
            x = layers.Lambda(MOVES[name])(x)
        x = layers.Conv2D(12, 3, padding="same", activation="relu")(x)
        if place == "inside":
            x = layers.Conv2D(12, 1)(layers.Lambda(MOVES[name])(x))
        elif place == "input":
            x = layers.Conv2D(12, 1)(x)
        else:
            x = layers.Lambda(MOVES[name])(x)
        outputs.append(x)
    data = np.random.default_rng(0).normal(size=(4, 6, 8, 12)).astype(np.float32)
    model = dqa.quantize_model(keras.Model(inputs, outputs), dqa.DQAConfig(bits=6))
    dqa.calibrate(model, data, verbose=0)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, mode="packed", samples=data, strict=True)
    assert set(report.ops) == {"DQA"}
    assert len(report.packed.regions) <= len(names)
    expected = [
        output
        for plan, constants in read_plans(path.read_bytes())
        for output in Reference(plan, constants)([data[0]])[0]
    ]
    interpreter = load_packed(path)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], data[:1])
    interpreter.invoke()
    got = [
        interpreter.get_tensor(d["index"])[0] for d in interpreter.get_output_details()
    ]
    theirs = [np.asarray(x)[0] for x in model(data[:1])]
    for ours in got:
        alike = [x for x in expected if x.size == ours.size]
        assert any(np.array_equal(x.reshape(-1), ours.reshape(-1)) for x in alike)
        near = [x for x in theirs if x.shape == ours.shape]
        largest = max(np.abs(x).max() for x in near)
        assert min(np.abs(x - ours).max() for x in near) < 0.05 * largest


def test_rows_of_pixels_and_single_pixels_are_images(tmp_path):
    keras.utils.set_random_seed(0)
    rows = keras.Input((24, 3))
    x = layers.Conv1D(8, 2, padding="causal", activation="relu")(rows)
    y = [
        layers.Conv1D(8, 2, padding="causal", dilation_rate=4, activation=name)(x)
        for name in ("tanh", "sigmoid")
    ]
    x = layers.Add()([layers.Multiply()(y), x])
    x = layers.Conv1D(8, 3, padding="same", activation="relu")(x)
    mean = layers.GlobalAveragePooling1D()(x)
    image = layers.Reshape((3, 4, 5))(layers.Dense(60, activation="relu")(mean))
    image = layers.Conv2DTranspose(2, 3, 2, padding="same")(image)
    data = np.random.default_rng(0).normal(size=(8, 24, 3)).astype(np.float32)
    model = dqa.quantize_model(keras.Model(rows, [x, image]), dqa.DQAConfig(bits=6))
    dqa.calibrate(model, data, verbose=0)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, mode="packed", samples=data, strict=True)
    assert report.ops == {"DQA": 1}
    assert report.packed.summary() == (
        "100.0 % of the multiplications in 1 region; no float tensor left"
    )
    assert report.max_difference < 0.05 * report.output_range
