import dataclasses

import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.calibration import statistics
from dqa_keras.calibration.histograms import histogram
from dqa_keras.calibration.observers import Observer


@pytest.fixture(scope="module")
def calibrated(small_cnn, images):
    config = dqa.DQAConfig(bits=3, extra_bits=2, important_fraction=0.5)
    model = dqa.quantize_model(small_cnn, config)
    dqa.calibrate(model, images, verbose=0)
    observers = statistics.collect(model, images, 16, 0, 0, None).observers
    return model, observers


@pytest.mark.parametrize("name", ["first_dqa", "second_dqa"])
def test_shares_sum_to_one_and_grids_are_those_of_the_codes(calibrated, name):
    model, observers = calibrated
    layer = model.get_layer(name)
    bins = histogram(layer.table(), observers[name])
    signed = name == "second_dqa"  # behind tanh
    assert list(bins.shares) == [3, 5]
    for bits, share in bins.shares.items():
        assert share.sum() == pytest.approx(1)
        assert bins.grids[bits].size == 2**bits
        assert bins.grids[bits][-1] == 1
        assert (bins.grids[bits][0] < 0) == signed
    assert (bins.edges[0] < 0) == signed


def test_zeros_and_clipped_values_are_those_of_the_codes(calibrated, images):
    model, observers = calibrated
    layer = model.get_layer("first_dqa")
    # All 36 positions of each image are in the statistics.
    values = np.asarray(model.get_layer("first")(images), np.float64)
    table = layer.table()
    steps = values / table.scale
    largest = np.where(table.mask, 2**5 - 1, 2**3 - 1)
    bins = histogram(table, observers["first_dqa"])
    # A bin of the statistics lies on one side of a border as a whole.
    assert bins.zeros == pytest.approx(np.mean(steps < 0.5), abs=0.01)
    assert bins.clipped == pytest.approx(np.mean(steps > largest + 0.5), abs=0.01)
    assert bins.zeros > 0.3
    assert bins.clipped > 0


def test_a_layer_without_important_channels_has_one_histogram(calibrated):
    model, observers = calibrated
    table = model.get_layer("first_dqa").table()
    plain = dataclasses.replace(table, mask=np.zeros_like(table.mask))
    bins = histogram(plain, observers["first_dqa"])
    assert list(bins.shares) == [3]


def test_a_layer_that_never_saw_anything_has_empty_shares(calibrated):
    table = calibrated[0].get_layer("first_dqa").table()
    bins = histogram(table, Observer(table.mask.size))
    assert bins.zeros == bins.clipped == 0
    assert all(share.sum() == 0 for share in bins.shares.values())
