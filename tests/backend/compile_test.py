import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import calibrated

import dqa_keras as dqa
from dqa_keras.backend.compile import compiled, fused

LAYERS = [dqa.layers.DQA, dqa.layers.Direct, dqa.layers.NoisyQuant]


@pytest.fixture
def x():
    # Odd sizes: no vector register is filled to the end.
    return np.random.default_rng(2).normal(size=(3, 7, 5, 13)).astype(np.float32)


def test_inside_a_graph_the_chain_is_one_compiled_function():
    halved = fused(lambda x: keras.ops.round(keras.ops.multiply(x, 0.5)))
    graph = tf.function(halved).get_concrete_function(tf.TensorSpec([None, 3]))
    calls = [op for op in graph.graph.get_operations() if "Call" in op.type]
    assert [call.get_attr("_XlaMustCompile") for call in calls] == [True]


def test_outside_a_graph_nothing_is_compiled():
    seen = []

    def function(x):
        seen.append(tf.executing_eagerly())
        return x

    fused(function)(tf.zeros(3))
    assert seen == [True]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer_class", LAYERS)
def test_fused_values_equal_eager_values_to_the_bit(layer_class, training, x):
    layer = calibrated(layer_class(bits=3), 13, signed=True)
    graph = tf.function(lambda x: layer(x, training=training))
    assert graph(x).numpy().tobytes() == layer(x, training=training).numpy().tobytes()


@pytest.mark.parametrize("layer_class", LAYERS)
def test_fused_gradients_equal_eager_gradients(layer_class, x):
    layer = calibrated(layer_class(bits=3), 13, signed=True)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, x)

    x = tf.constant(x)
    np.testing.assert_allclose(tf.function(gradient)(x), gradient(x), rtol=1e-6)


def test_one_graph_serves_batches_of_any_size():
    traced = []

    def double(x):
        traced.append(x.shape)
        return 2 * x

    run = compiled(double)
    for size in (4, 4, 1, 7):
        x = np.ones((size, 3), np.float32)
        np.testing.assert_array_equal(run(x), 2 * x)
    assert len(traced) == 1


def test_images_of_changing_sizes_take_two_graphs():
    traced = []

    def double(x):
        traced.append(x.shape)
        return 2 * x

    run = compiled(double)
    for size in (4, 5, 9, 4, 2):
        x = np.ones((2, size, 3), np.float32)
        np.testing.assert_array_equal(run(x), 2 * x)
    assert len(traced) == 2
    assert traced[-1] == (None, None, 3)


def test_structures_of_inputs_are_kept():
    run = compiled(lambda x: {"sum": x["a"] + x["b"]})
    a = np.float32([[1, 2]])
    for _ in range(2):
        np.testing.assert_array_equal(run({"a": a, "b": a})["sum"], 2 * a)
