"""Convolutions that read some channels each: grouped ones, and depth multipliers."""

import keras
import numpy as np
import pytest
from packed_runs import run

import dqa_keras as dqa
from dqa_keras.export import export_tflite, load_packed
from dqa_keras.export.packed.gathering import groups
from dqa_keras.export.packed.pack import read_plans
from dqa_keras.export.plan.reference import Reference

layers = keras.layers


@pytest.mark.parametrize(
    ("count", "size", "made"), [(8, 4, 4), (2, 5, 24), (9, 1, 2), (3, 2, 7)]
)
def test_parts_are_the_grouped_convolution(count, size, made):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(count * made, 1, 1, size))
    x = random.normal(size=count * size)
    expected = np.concatenate(
        [
            kernel[g * made : (g + 1) * made, 0, 0] @ x[g * size : (g + 1) * size]
            for g in range(count)
        ]
    )
    written = np.full(count * made, np.nan)
    parts = list(groups(kernel, count * size))
    for taken, channels, own in parts:
        written[channels] = own[:, 0, 0] @ x[taken]
    np.testing.assert_allclose(written, expected)
    assert len(parts) == -(-count // max(1, 16 // made))


def test_groups_run_inside(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 9, 3))
    x = layers.Conv2D(32, 1, activation="relu")(inputs)
    y = layers.Conv2D(32, 3, padding="same", groups=8, activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(32, 3, padding="same", groups=4)(y)])
    x = layers.Conv2D(48, 3, 2, padding="same", groups=2, activation="silu")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)
    model = keras.Model(inputs, layers.Conv2D(10, 1, groups=2)(x))
    data = np.random.default_rng(0).normal(size=(8, 8, 9, 3)).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=6))
    dqa.calibrate(model, data, verbose=0)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, mode="packed", samples=data, strict=True)
    assert report.ops == {"DQA": 1}
    ((plan, constants),) = read_plans(path.read_bytes())
    outputs, _ = Reference(plan, constants)([data[0]])
    np.testing.assert_array_equal(run(load_packed(path), data[:1])[0], outputs[0])
    assert report.max_difference < 0.08 * report.output_range
