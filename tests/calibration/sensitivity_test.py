import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.calibration import sensitivity


def linear(kernel, activation=None, shape=()):
    """A quantizer and one matrix behind it."""
    kernel = np.float32(kernel)
    inputs = keras.Input((*shape, kernel.shape[0]))
    head = keras.layers.Dense(kernel.shape[1], activation, use_bias=False)
    model = keras.Model(inputs, head(dqa.layers.DQA(name="q")(inputs)))
    head.set_weights([kernel])
    return model


def sums(model, loss, x):
    ((layer, weights),) = sensitivity.observing(model, loss)(x)
    assert layer.name == "q"
    assert weights.dtype == np.float64
    return weights


def test_of_one_output_it_is_the_squared_weight_for_every_image():
    model = linear([[3.0], [-1.0], [0.0]])
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    for loss in ("output", "fisher"):
        np.testing.assert_allclose(sums(model, loss, x), [7 * 9, 7, 0], rtol=1e-6)


def test_positions_of_an_image_are_summed():
    model = linear([[2.0], [1.0]], shape=(4, 5))
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(sums(model, "output", x), [60 * 4, 60], rtol=1e-6)


def test_output_is_the_squared_jacobian_on_average():
    kernel = np.random.default_rng(1).normal(size=(4, 8))
    x = np.random.default_rng(0).normal(size=(4000, 4)).astype(np.float32)
    weights = sums(linear(kernel), "output", x) / len(x)
    np.testing.assert_allclose(weights, np.sum(kernel**2, 1), rtol=0.1)


def test_fisher_is_the_information_of_the_predicted_classes():
    kernel = np.random.default_rng(1).normal(size=(4, 3))
    x = np.random.default_rng(0).normal(size=(6000, 4)).astype(np.float32)
    p = np.exp(x @ kernel)
    p /= p.sum(1, keepdims=True)
    mean = p @ kernel.T  # (N, 4): the expected row of the kernel
    expected = np.mean(p @ (kernel**2).T - mean**2, 0)
    weights = sums(linear(kernel), "fisher", x) / len(x)
    np.testing.assert_allclose(weights, expected, rtol=0.1)


def test_probabilities_are_taken_as_logits():
    kernel = np.random.default_rng(1).normal(size=(4, 6))
    x = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    fisher = [sums(linear(kernel, act), "fisher", x) for act in (None, "softmax")]
    np.testing.assert_allclose(fisher[1], fisher[0], rtol=0.15)
    p = np.exp(x @ kernel)
    p /= p.sum(1, keepdims=True)
    # The logarithm of a probability is its logit less the mean over all classes.
    rows = kernel[None] - (p @ kernel.T)[:, :, None]
    weights = sums(linear(kernel, "softmax"), "output", x) / len(x)
    np.testing.assert_allclose(weights, np.mean(np.sum(rows**2, 2), 0), rtol=0.1)


@pytest.mark.parametrize("loss", ["output", "fisher"])
def test_order_and_batches_do_not_matter(loss):
    model = linear(np.random.default_rng(1).normal(size=(4, 6)))
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    whole = sums(model, loss, x)
    parts = sum(sums(model, loss, part) for part in (x[40:][::-1], x[:40]))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_what_does_not_reach_the_output_counts_nothing():
    inputs = keras.Input((3,))
    used = dqa.layers.DQA(name="a")(inputs)
    dead = keras.ops.stop_gradient(dqa.layers.DQA(name="b")(inputs))
    outputs = keras.layers.Dense(2)(used) + 0.0 * keras.ops.sum(dead)
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    weights = {q.name: s for q, s in sensitivity.observing(model, "output")(x)}
    assert weights["b"].tolist() == [0, 0, 0]
    assert weights["a"].min() > 0


def test_dampened_keeps_the_order_and_leaves_no_channel_out():
    weights = sensitivity.dampened(np.array([0.0, 0.1, 1.0, 6.9]))
    assert weights[0] == weights[1] > 0
    assert weights[1] < weights[2] < weights[3] < 6.9
    np.testing.assert_allclose(sensitivity.dampened(5 * np.ones(3)), 5)
    np.testing.assert_array_equal(sensitivity.dampened(np.zeros(3)), 0)
