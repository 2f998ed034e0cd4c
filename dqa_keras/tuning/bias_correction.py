"""Corrects biases for the mean error of rounding and clipping.

The error of quantization is not zero on average: clipping only makes values smaller.
The next layer sums this error over its taps. Its mean in each channel, measured against
the unquantized model, is subtracted from the layer's bias. Layers are corrected from
first to last, so that each is measured on inputs that are corrected already.

Example:
>>> import keras, numpy as np
>>> import dqa_keras as dqa
>>> model = keras.Sequential([
...     keras.Input((4,)), keras.layers.Dense(8, activation="relu"),
...     keras.layers.Dense(2, name="head"),
... ])
>>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=2))
>>> x = np.random.default_rng(0).random((64, 4), "float32")
>>> dqa.calibrate(quantized, x, verbose=0)
>>> dqa.correct_bias(quantized, model, x)
['head']

Reference:
    - [Data-free quantization](https://arxiv.org/abs/1906.04721), section 4.2
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import layers as keras_layers
from keras import ops

from dqa_keras.backend import data_adapter
from dqa_keras.graph import calls
from dqa_keras.graph.layer_kinds import BIASED
from dqa_keras.tuning import model_pair

# Enough for the mean of a channel. Their live activations are held for both models.
_IMAGES = 128


def correct_bias(quantized: keras.Model, model: keras.Model, data: Any) -> list[str]:
    """Subtracts the mean error of every layer's output from its bias, in place.

    Args:
        quantized: What `quantize_model` made of `model`, calibrated.
        model: Functional or Sequential Keras model.
        data: Inputs, as for `calibrate`. The first 128 images give the means, and the
            counts of codes that Huffman lengths come from.

    Returns:
        Names of the layers whose bias (or batch normalization's `beta`) has changed.
        Layers without one, and those that are called more than once, keep their error.

    Raises:
        ValueError: If a quantizer is not calibrated, or the models do not belong
            together.
    """
    layers = model_pair.originals(quantized, model, "bias correction")
    images = next(iter(data_adapter.Rounds(model, data, _IMAGES)))
    changed = _corrected(calls.flatten(quantized), layers, images)
    model_pair.count_again(quantized, images)
    return changed


def _bias(layer: Any) -> Any:
    """The variable that a layer adds to each channel of its output, or None."""
    if isinstance(layer, keras_layers.BatchNormalization):
        return layer.beta if layer.center else None
    return layer.bias if isinstance(layer, BIASED) else None


def _corrected(seen: calls.Graph, originals: dict[str, Any], images: Any) -> list[str]:
    """Runs both models side by side, layer by layer; names of corrected layers."""
    names = [call.operation.name for call in seen.calls]
    last = {
        id(x): number for number, call in enumerate(seen.calls) for x in call.inputs
    }
    leaves = map(ops.convert_to_tensor, keras.tree.flatten(images))
    exact = dict(zip(map(id, seen.inputs), leaves, strict=True))
    coded = dict(exact)
    changed = []
    for number, call in enumerate(seen.calls):
        layer = call.operation
        original = originals.get(layer.name, layer)
        bias = _bias(layer) if names.count(layer.name) == 1 else None
        if bias is not None:
            with linear(layer), linear(original):
                error = _mean_error(call.run(coded)[0], call.run(exact, original)[0])
            if np.any(ops.convert_to_numpy(error)):
                bias.assign(bias - ops.cast(error, bias.dtype))
                changed.append(layer.name)
        outputs = model_pair.run_unquantized(call, exact, originals)
        exact.update(zip(map(id, call.outputs), outputs, strict=True))
        coded.update(zip(map(id, call.outputs), call.run(coded), strict=True))
        for x in call.inputs:
            if last[id(x)] == number:
                exact.pop(id(x), None)
                coded.pop(id(x), None)
    return changed


def _mean_error(coded: Any, exact: Any) -> Any:
    """Mean error of each channel: float32 (C,)."""
    error = ops.cast(coded, "float32") - ops.cast(exact, "float32")
    return ops.mean(error, tuple(range(len(error.shape) - 1)))


@contextmanager
def linear(layer: Any) -> Iterator[None]:
    """Within the context a layer gives its output before the activation."""
    before = getattr(layer, "activation", None)
    if before is None:
        yield
        return
    layer.activation = keras.activations.linear
    try:
        yield
    finally:
        layer.activation = before
