"""Least squares from moments, against NumPy's own."""

import numpy as np
import pytest

from dqa_keras.tuning.least_squares import Moments


def equations(groups=3, count=200, inputs=4, outputs=2):
    random = np.random.default_rng(0)
    x = random.normal(1.0, size=(groups, count, inputs)).astype(np.float32)
    y = x @ random.normal(size=(groups, inputs, outputs)) + random.normal(
        size=(groups, 1, outputs)
    )
    return x, (y + random.normal(size=y.shape)).astype(np.float32)


def test_the_solution_is_that_of_ordinary_least_squares():
    x, y = equations()
    moments = Moments.of(x[:, :120], y[:, :120]) + Moments.of(x[:, 120:], y[:, 120:])
    weights, bias = moments.solved(np.zeros((3, 4, 2)), 0.0)
    for group in range(3):
        with_one = np.pad(x[group], ((0, 0), (0, 1)), constant_values=1)
        expected = np.linalg.lstsq(with_one, y[group], rcond=None)[0]
        np.testing.assert_allclose(weights[group], expected[:-1], atol=1e-4)
        np.testing.assert_allclose(bias[group], expected[-1:], atol=1e-4)
    left = y - x @ weights - bias
    error = np.square(left).sum() / 200
    assert moments.error(weights, bias) == pytest.approx(error, rel=1e-4)


def test_a_large_ridge_keeps_the_weights_and_still_takes_the_mean_error_away():
    x, y = equations()
    moments = Moments.of(x, y)
    before = np.random.default_rng(1).normal(size=(3, 4, 2))
    weights, bias = moments.solved(before, np.inf)
    np.testing.assert_array_equal(weights, before)
    left = y - x @ weights - bias
    np.testing.assert_allclose(left.mean(1), 0, atol=1e-5)
    near, _ = moments.solved(before, 1e6)
    np.testing.assert_allclose(near, before, atol=1e-4)
    assert not moments.solved(before, np.inf, centred=False)[1].any()


def test_inputs_that_never_change_keep_their_weights():
    x, y = equations()
    x[1] = 0
    before = np.random.default_rng(1).normal(size=(3, 4, 2))
    weights, _ = Moments.of(x, y).solved(before, 1e-3)
    np.testing.assert_array_equal(weights[1], before[1])
