"""Pictures and the page they go into."""

import re

import keras
import numpy as np

import dqa_keras as dqa
from dqa_keras import plots, report
from dqa_keras.layers import quantizer_layers


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
    return quantized, dqa.storage_bits(quantized, x)


def test_accuracy_plot_shows_each_point_where_it_was_measured():
    axes = plots.accuracy_against_bits({"dqa": [(4.4, 90.0), (3.4, 80.0)]}, 92.5)
    line = next(line for line in axes.lines if line.get_label() == "dqa")
    assert line.get_xydata().tolist() == [[3.4, 80.0], [4.4, 90.0]]
    assert "stored bits" in axes.get_xlabel()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["float32: 92.50 %", "dqa"]


def test_storage_plot_is_to_scale():
    _, storage = calibrated()
    axes = plots.layer_storage(storage)
    int8, stored = (bars[0].get_width() for bars in axes.containers)
    assert stored / int8 == np.float64(storage.layers["hidden_dqa"].bits / 8)


def test_importance_plot_has_a_mark_for_each_channel():
    model, _ = calibrated()
    axes = plots.channel_importance(quantizer_layers(model))
    marks = [len(group.get_offsets()) for group in axes.collections]
    assert marks == [2, 6]  # a quarter of 8 channels is important


def test_page_is_whole_and_escapes_what_it_shows():
    axes = plots.accuracy_against_bits({"direct": [(3, 80.0)]}, 92.5)
    rows = [("name", "value"), ("<script>", "1 & 2")]
    text = report.page("A <title>", ["Text"], rows, [("Caption", axes)])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<svg") == text.count("</svg>") == 1
    # Self-contained: addresses are those of XML name spaces only.
    loaded = re.findall(r'(?:src|href)="(?!#)([^"]*)"', text)
    assert loaded == []
