"""Models that the converter refuses, with the real converter."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras.export import VerificationError, export_tflite
from dqa_keras.export.litert import refusals

layers = keras.layers


class Foreign(layers.Layer):
    """A layer of TensorFlow's ops."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self._function = function

    def call(self, x):
        return self._function(x)


def calibrated(function):
    inputs = keras.Input((6, 6, 3))
    x = dqa.layers.DQA(bits=4)(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, Foreign(function, name="odd")(x))
    images = np.random.default_rng(0).random((4, 6, 6, 3), np.float32)
    dqa.calibrate(model, images, verbose=0)
    return model, images


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (tf.math.digamma, "no built-in op for Digamma of layer 'odd'"),
        (
            lambda x: tf.strings.to_number(tf.strings.as_string(x)),
            "AsString of layer 'odd', StringToNumber of layer 'odd'",
        ),
        (
            lambda x: tf.cast(tf.sin(tf.cast(x, tf.float64)), tf.float32),
            "Sin of layer 'odd' on float64",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["builtin", "packed"])
def test_what_is_refused_is_one_sentence(function, message, mode, tmp_path, capfd):
    model, images = calibrated(function)
    capfd.readouterr()
    with pytest.raises(ValueError, match=message) as caught:
        export_tflite(model, tmp_path / "m.tflite", mode=mode, samples=images)
    text = str(caught.value)
    assert text.endswith("Replace the layer, or leave it out of the exported model.")
    assert "\n" not in text
    assert "loc(" not in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_converts_but_does_not_run_is_refused(tmp_path):
    def transformed(x):
        return tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64)))

    model, images = calibrated(transformed)
    with pytest.raises(
        VerificationError, match=r"LiteRT cannot run the export: .*RESHAPE"
    ):
        export_tflite(model, tmp_path / "m.tflite", samples=images)
    assert list(tmp_path.iterdir()) == []


def test_a_message_without_ops_keeps_its_first_line():
    text = refusals.explain("\nbroken: no idea\nmore\n", ["a"])
    assert "refuses the model: broken: no idea. Replace" in text
    assert "it does not say why" in refusals.explain("", [])


def test_what_is_written_to_standard_error_is_not_lost(capfd):
    import os

    with refusals.quiet():
        os.write(2, b"a warning\n")
    assert capfd.readouterr().err == "a warning\n"
