import keras
import numpy as np
import oracle
import pytest

import dqa_keras as dqa
from dqa_keras.calibration import ranking
from dqa_keras.calibration.observers import Observer
from dqa_keras.calibration.trials import Trials


def observer_of(samples):
    observer = Observer(samples.shape[1])
    observer.update(samples, samples.min(0), samples.max(0))
    return observer


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(0)
    size = np.array([0.1, 4.0, 1.0, 2.0])
    return np.abs(random.normal(size=(4000, 4)) * size).astype(np.float32)


def scales(samples, bits, extra_bits):
    largest = samples.max(0)
    return tuple(
        (largest / (2**b - 1)).astype(np.float32) for b in (bits, bits + extra_bits)
    )


def true_error(samples, scale, bits):
    x_hat = oracle.quantized(samples, scale, [False] * 4, bits, 0, False)
    return np.sum((samples.astype(np.float64) - x_hat) ** 2, 0)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_squared_error_of_the_histogram_is_that_of_the_samples(samples, bits):
    scale, _ = scales(samples, bits, 1)
    scores = ranking.squared_error(observer_of(samples), scale, bits, False)
    np.testing.assert_allclose(scores, true_error(samples, scale, bits), rtol=0.05)


def test_mse_scores_are_the_error_that_the_extra_bits_remove(samples):
    coarse, fine = scales(samples, 3, 2)
    scores = ranking.mse_scores(
        observer_of(samples), (coarse, fine), 3, 2, signed=False
    )
    expected = true_error(samples, coarse, 3) - true_error(samples, fine, 5)
    np.testing.assert_allclose(scores, expected, rtol=0.05)
    assert np.argsort(-scores).tolist() == [1, 3, 2, 0]


def test_mse_ranking_gives_the_extra_bits_to_the_channel_with_the_largest_error():
    layer = dqa.layers.DQA(bits=3, extra_bits=2, important_fraction=0.25)
    model = keras.Sequential([keras.Input((4,)), layer])
    random = np.random.default_rng(3)
    x = random.uniform(0, 1, (512, 4)) * np.array([1, 2, 10, 3])
    dqa.calibrate(model, x.astype(np.float32), verbose=0)
    assert layer.mask.numpy().tolist() == [False, False, True, False]


def test_greedy_finds_the_channel_that_matters_for_the_output():
    # Channel 0 is by far the largest, but only channel 2 reaches the output.
    inputs = keras.Input((4,))
    layer = dqa.layers.DQA(
        bits=2, extra_bits=3, important_fraction=0.25, ranking="greedy", name="q"
    )
    head = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, head(layer(inputs)))
    head.set_weights([np.float32([[0], [0], [1], [0.01]])])
    x = np.random.default_rng(0).uniform(0, 1, (64, 4)) * np.array([50, 1, 1, 1])
    dqa.calibrate(model, x.astype(np.float32), verbose=0)
    assert layer.mask.numpy().tolist() == [False, False, True, False]
    scores = layer.importance.numpy()
    assert scores[2] > scores[3] != 0
    assert scores[:2].tolist() == [0, 0]


def test_greedy_scores_are_what_losing_extra_bits_adds_to_the_error():
    asked = []

    def errors(masks):
        asked.append(masks.tolist())
        return np.array([1.0, 4.0, 2.0])

    scores = ranking.greedy_scores(errors, 2)
    assert asked == [[[True, True], [False, True], [True, False]]]
    assert scores.tolist() == [3.0, 1.0]


def test_greedy_scores_are_the_fall_of_the_output_error():
    layer = dqa.layers.DQA(bits=2, extra_bits=2, signed=False)
    model = keras.Sequential([keras.Input((2,)), layer])
    x = np.random.default_rng(0).uniform(0, 1, (100, 2)).astype(np.float32)
    coarse, fine = np.float32([1 / 3] * 2), np.float32([1 / 15] * 2)
    trials = Trials(model, x)
    tried = []
    scores = ranking.greedy_scores(
        lambda masks: trials.errors(
            layer, masks, np.where(masks, fine, coarse), tried.append
        ),
        2,
    )

    def error(mask):
        scale = np.where(mask, fine, coarse)
        x_hat = oracle.quantized(x, scale, mask, 2, 2, False)
        return np.sum((x - x_hat) ** 2)

    least = error([True, True])
    expected = [error([False, True]) - least, error([True, False]) - least]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert sum(tried) == ranking.trial_count([layer]) == 3
