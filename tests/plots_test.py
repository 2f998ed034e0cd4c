"""Pictures show the figures they are given, where they belong."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras import plots
from dqa_keras.analysis import memory
from dqa_keras.calibration import statistics
from dqa_keras.calibration.histograms import histogram
from dqa_keras.layers import quantizer_layers


@pytest.fixture(scope="module")
def calibrated():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(2),
        ]
    )
    x = np.random.default_rng(0).random((64, 6))
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=3))
    dqa.calibrate(quantized, x, verbose=0)
    return quantized, x


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_accuracy_plot_shows_each_point_where_it_was_measured():
    axes = plots.accuracy_against_bits({"dqa": [(4.4, 90.0), (3.4, 80.0)]}, 92.5)
    line = next(line for line in axes.lines if line.get_label() == "dqa")
    assert line.get_xydata().tolist() == [[3.4, 80.0], [4.4, 90.0]]
    assert "stored bits" in axes.get_xlabel()
    assert labels(axes) == ["float32: 92.50 %", "dqa"]


def test_storage_plot_is_to_scale(calibrated):
    storage = dqa.storage_bits(*calibrated)
    axes = plots.layer_storage(storage)
    int8, stored = (bars[0].get_width() for bars in axes.containers)
    assert stored / int8 == np.float64(storage.layers["hidden_dqa"].bits / 8)


def test_importance_plot_has_a_cell_for_each_channel_and_marks_the_chosen(calibrated):
    layers = quantizer_layers(calibrated[0])
    axes = plots.channel_importance(layers)
    (image,) = axes.images
    cells = image.get_array()
    assert cells.shape == (1, 8)
    scores = np.asarray(layers[0].importance)
    assert np.argmax(cells[0]) == np.argmax(scores)
    assert cells.max() == 0  # log2 of the largest's share of itself
    (marks,) = axes.lines
    assert marks.get_xdata().tolist() == np.flatnonzero(layers[0].mask).tolist()
    assert len(marks.get_xdata()) == 2  # a quarter of 8 channels is important


def test_histogram_plot_has_a_rule_for_each_code(calibrated):
    model, x = calibrated
    observers = statistics.collect(model, x, 32, 0, 0, None).observers
    bins = histogram(model.get_layer("hidden_dqa").table(), observers["hidden_dqa"])
    axes = plots.histogram(bins)
    (rules,) = axes.collections
    assert len(rules.get_segments()) == 2**3
    steps = {patch.get_label(): patch for patch in axes.patches}
    assert set(steps) == {"channels of 3 bits", "channels of 5 bits"}
    drawn = steps["channels of 3 bits"].get_data()
    np.testing.assert_allclose(drawn.values, 100 * bins.shares[3])


def test_timeline_plot_marks_the_peaks(calibrated):
    live = memory.timeline(calibrated[0])
    axes = plots.memory_timeline(live)
    assert labels(axes)[0] == "float32: peak 0.0547 KiB at hidden"
    for line, form in zip(axes.lines, memory.FORMS, strict=True):
        step, peak = live.peak(form)
        np.testing.assert_allclose(line.get_xydata(), [[step + 1, peak / 1024]])
    assert "KiB" in axes.get_ylabel()


def test_plots_draw_on_the_axes_they_are_given(calibrated):
    axes = plots.new_axes()
    assert plots.memory_timeline(memory.timeline(calibrated[0]), axes) is axes
    assert plots.svg(axes).startswith("<svg")
