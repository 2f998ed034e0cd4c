"""LiteRT's own int8 of a model, to see ours beside."""

import contextlib
import io
from typing import Any

import keras


def int8_tflite(model: keras.Model, data: Any) -> bytes:
    """A model with weights and activations in int8; inputs and outputs stay float.

    Args:
        model: Keras model with one input.
        data: `tf.data.Dataset` of (image, label), unbatched. All of its images set the
            ranges.

    Returns:
        Bytes of a `.tflite`.

    Raises:
        RuntimeError: If the converter refuses the model.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x, _ in data)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the signature
        return converter.convert()
