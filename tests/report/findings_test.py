"""Findings are what the single measurements give."""

import numpy as np
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras.calibration import output_noise
from dqa_keras.report.findings import BASELINE_BITS, examine


def accuracy(model, x, y):
    return 100 * float(np.mean(np.argmax(model.predict(x, verbose=0), -1) == y))


def test_layers_hold_what_was_measured(examined):
    _, quantized, (x, _), findings = examined
    storage = dqa.storage_bits(quantized, x[160:])
    alone = output_noise.output_sqnr(quantized, x[160:192])
    assert [layer.table.name for layer in findings.layers] == list(storage.layers)
    for layer in findings.layers:
        measured = storage.layers[layer.table.name]
        assert layer.stored_bits == pytest.approx(measured.bits)
        assert layer.sqnr == pytest.approx(measured.sqnr, abs=1e-3)
        wanted = alone.layers[layer.table.name]
        assert layer.output_sqnr == pytest.approx(wanted, abs=0.01)
        assert layer.importance.shape == layer.table.mask.shape
        assert layer.histogram is not None
    assert findings.stored_bits == pytest.approx(storage.total)
    assert findings.activations == storage.activations
    assert findings.output_sqnr == pytest.approx(alone.total, abs=0.01)


def test_scores_are_the_accuracies_of_the_models(examined):
    model, quantized, (x, y), findings = examined
    scores = findings.scores
    x, y = x[160:], y[160:]
    assert (scores.measure, scores.images) == ("accuracy (%)", 80)
    assert scores.unquantized == pytest.approx(accuracy(model, x, y))
    assert scores.unquantized > 90
    assert scores.this[1] == pytest.approx(accuracy(quantized, x, y))
    assert [bits for bits, _ in scores.points["direct"]] == list(BASELINE_BITS)
    # With 8 bits nothing of the accuracy is lost.
    assert scores.points["direct"][-1][1] == pytest.approx(scores.unquantized, abs=1.3)


def test_without_labels_the_unquantized_output_is_the_measure(examined):
    _, quantized, (x, _), _ = examined
    data = tf.data.Dataset.from_tensor_slices(x[160:]).batch(32)
    scores = examine(quantized, data, data).scores
    assert scores.measure == "SQNR of the output (dB)"
    assert scores.unquantized is None
    total = output_noise.output_sqnr(quantized, x[160:]).total
    assert scores.this[1] == pytest.approx(total, abs=0.01)
    decibels = [value for _, value in scores.points["direct"]]
    assert decibels[-1] > decibels[0] + 20


def test_the_model_is_left_as_it_was(examined):
    quantized = examined[1]
    for layer in quantized.layers:
        if isinstance(layer, dqa.layers.DQA):
            assert layer.is_calibrated
            assert layer.hook is None
