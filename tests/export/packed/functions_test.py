"""Activations of every family in packed models: one region, and the right function."""

import keras
import numpy as np
import pytest
from packed_runs import relative_error

import dqa_keras as dqa
from dqa_keras.export import export_tflite
from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.model_reader import ModelReader
from dqa_keras.export.packed.functions import function

layers, ops = keras.layers, keras.ops

CURVED = {
    name: getattr(keras.activations, name)
    for name in (
        "celu", "elu", "gelu", "log_sigmoid", "mish", "selu", "sigmoid", "silu",
        "soft_shrink", "softplus", "softsign", "sparse_plus", "tanh", "tanh_shrink",
    )
}  # fmt: skip
CURVED |= {
    "gelu by tanh": lambda x: ops.gelu(x, approximate=True),
    "leaky relu": lambda x: ops.leaky_relu(x, 0.3),
    "leaky relu by maximum": lambda x: ops.maximum(x, 0.1 * x),
    "shifted root": lambda x: ops.rsqrt(ops.square(x) + 1.5),
    "quotient": lambda x: x / (1 + ops.exp(-1.7 * x)),
}  # fmt: skip


def converted(activation):
    """A float model that is nothing but an activation, and its ops."""
    inputs = keras.Input(batch_shape=(1, 4, 4, 3))
    model = keras.Model(inputs, Named(activation)(inputs))
    import tensorflow as tf

    data = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    return ModelReader(flatbuffer.parse(data), [])


class Named(keras.layers.Layer):
    """A function as a layer, which takes no part in training."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def call(self, x):
        return self._function(x)


@pytest.mark.parametrize("name", CURVED)
def test_ops_of_an_activation_are_one_function(name):
    reader = converted(CURVED[name])
    node = function(reader, 0)
    assert node is not None
    assert node.ops == list(range(len(reader.graph.ops)))
    x = np.linspace(-9, 9, 145)
    np.testing.assert_allclose(node.function(x), CURVED[name](x), atol=2e-5)


@pytest.mark.parametrize(
    "plain",
    [
        ops.relu,
        ops.relu6,
        ops.hard_silu,
        lambda x: ops.relu(2 * x + 1) - 3,
        lambda x: x + x,
        lambda x: ops.clip(x, -1, 2),
    ],
)
def test_what_a_region_computes_exactly_is_no_function(plain):
    reader = converted(plain)
    for index in range(len(reader.graph.ops)):
        assert function(reader, index) is None


def test_a_value_that_others_read_ends_a_function():
    def gate(x):
        gate = ops.sigmoid(x)
        return ops.concatenate([gate, x * gate], axis=-1)

    reader = converted(gate)
    kinds = [reader.graph.kind(op) for op in reader.graph.ops]
    node = function(reader, kinds.index("LOGISTIC"))
    assert [kinds[op] for op in node.ops] == ["LOGISTIC"]


def test_constants_that_differ_between_channels_are_no_part_of_it():
    slopes = np.array([1.0, 2.0, 3.0], np.float32)
    reader = converted(lambda x: ops.tanh(x) * slopes)
    assert [len(node.ops) for node in [function(reader, 0)]] == [1]


def exported(path, activation, trusted=True):
    """A network with an activation behind each convolution, and what it gives."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((12, 12, 3))
    for _ in range(2):
        x = activation()(layers.Conv2D(9, 3, padding="same")(x))
    x = layers.Add()([x, activation()(layers.DepthwiseConv2D(3, padding="same")(x))])
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    data = np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=8, extra_bits=0))
    dqa.calibrate(model, data, verbose=0)
    samples = data if trusted else None
    report = export_tflite(model, path, mode="packed", samples=samples)
    return report, relative_error(model, path, data)


def activation(name):
    return lambda: layers.Activation(name)


ACTIVATIONS = {
    "relu": layers.ReLU,
    "silu": activation("silu"),
    "gelu": activation("gelu"),
    "mish": activation("mish"),
    "selu": activation("selu"),
    "tanh": activation("tanh"),
    "leaky": layers.LeakyReLU,
    "prelu": lambda: layers.PReLU(
        shared_axes=[1, 2],
        alpha_initializer=keras.initializers.RandomUniform(-0.2, 0.7, seed=1),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_networks_of_any_activation_are_one_region(tmp_path, name):
    report, error = exported(tmp_path / "m.tflite", ACTIVATIONS[name])
    assert report.ops == {"DQA": 1}, report.packed.outside
    # Weights of int8 alone cost as much; a wrong function costs all.
    assert error < 0.03


def test_ranges_of_random_samples_resolve_a_function_too(tmp_path):
    report, error = exported(tmp_path / "m.tflite", ACTIVATIONS["silu"], trusted=False)
    assert report.ops == {"DQA": 1}, report.packed.outside
    assert error < 0.03


def test_a_jump_stays_outside_with_its_reason(tmp_path):
    report, _ = exported(tmp_path / "m.tflite", activation("hard_shrink"))
    reasons = set(report.packed.outside.values())
    assert "a function too steep for 512 straight pieces" in reasons
