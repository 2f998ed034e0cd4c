"""Figures of a quantized model beside the float one."""

import numpy as np
import pytest

from dqa_keras.analysis.comparison import Comparison


def one_hot(classes, count=3):
    return np.eye(count, dtype=np.float32)[classes]


def test_figures_over_several_batches():
    comparison = Comparison(3)
    comparison.add(one_hot([0, 1, 2]), one_hot([0, 1, 1]), np.array([0, 2, 1]))
    comparison.add(2 * one_hot([0]), one_hot([0]), np.array([0]))
    figures = comparison.result()
    assert figures["accuracy"] == 50.0
    assert figures["agreement"] == 75.0
    assert figures["output_error"] == (2 + 1) / 4
    # One image of four was right in float alone.
    assert figures["drop_error"] == pytest.approx(100 * np.sqrt(0.25 * 0.75 / 4))
    assert figures["agreement_error"] == pytest.approx(100 * np.sqrt(0.75 * 0.25 / 4))


def test_an_image_lost_and_one_won_have_an_error_but_no_drop():
    comparison = Comparison(3)
    comparison.add(one_hot([1, 0]), one_hot([0, 1]), np.array([0, 0]))
    assert comparison.result()["accuracy"] == 50.0
    assert comparison.result()["drop_error"] == pytest.approx(100 / np.sqrt(2))


def test_masks_agree_by_the_pixel_and_have_no_standard_error():
    comparison = Comparison(3)
    labels = np.array([[[0, 1], [2, 255]]])
    comparison.add(one_hot(np.array([[[0, 1], [2, 2]]])), one_hot(labels % 3), labels)
    figures = comparison.result()
    assert figures["accuracy"] == 100.0
    assert figures["agreement"] == 75.0
    assert "drop_error" not in figures
