"""Takes the mean error of rounding and clipping out of a quantized model's biases.

What quantization does to an activation is not zero on average: clipping only takes.
Layers behind it add that up over their taps. Their results' mean error, channel by
channel against the unquantized model, is subtracted from their biases, front to back,
so that each layer sees what the ones before it have left.

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
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers as keras_layers
from keras import ops

from dqa_keras import feeding, graph, storage
from dqa_keras.layers import Quantizer, quantizer_layers

# Enough for the mean of a channel; what is alive of them is held, twice.
_IMAGES = 128


def correct_bias(quantized: keras.Model, model: keras.Model, data: Any) -> list[str]:
    """Subtracts the mean error of every layer's result from its bias, in place.

    Args:
        quantized: What `quantize_model` made of `model`, calibrated.
        model: Functional or Sequential Keras model.
        data: Inputs, as for `calibrate`. The first 128 images are used.

    Returns:
        Names of the layers whose bias (or batch normalization's `beta`) has changed.
        Layers without one, and those that are called more than once, keep their error.

    Raises:
        ValueError: If a quantizer is not calibrated, or the models do not belong
            together.
    """
    for layer in quantizer_layers(quantized):
        layer.table()  # raises if the layer is not calibrated
    if not (graph.is_known(model) and graph.is_known(quantized)):
        raise ValueError(
            "bias correction needs Functional or Sequential models: the layers of a "
            f"subclassed one are out of sight. Received: {type(model).__name__}"
        )
    originals = _originals(quantized, model)
    images = next(iter(feeding.Rounds(model, data, _IMAGES)))
    changed = _corrected(graph.flattened(quantized), originals, images)
    found = storage.counted(quantized, images)  # other activations, other codes
    for layer in quantizer_layers(quantized):
        layer.assign(found[layer.name])
    return changed


# A layer and where its additive weight lies.
_ADDITIVE = (
    (keras_layers.BatchNormalization, "beta"),
    (keras_layers.Dense, "bias"),
    (keras_layers.Conv1D, "bias"),
    (keras_layers.Conv2D, "bias"),
    (keras_layers.Conv3D, "bias"),
    (keras_layers.Conv1DTranspose, "bias"),
    (keras_layers.Conv2DTranspose, "bias"),
    (keras_layers.Conv3DTranspose, "bias"),
    (keras_layers.DepthwiseConv1D, "bias"),
    (keras_layers.DepthwiseConv2D, "bias"),
    (keras_layers.SeparableConv1D, "bias"),
    (keras_layers.SeparableConv2D, "bias"),
)


def _bias(layer: Any) -> Any:
    """What a layer adds to each channel of its result, or None."""
    for kind, name in _ADDITIVE:
        if isinstance(layer, kind):
            return getattr(layer, name, None)
    return None


def _originals(quantized: keras.Model, model: keras.Model) -> dict[str, Any]:
    """The layers of the model that have weights, by name."""
    found = {
        call.operation.name: call.operation
        for call in graph.flattened(model).calls
        if getattr(call.operation, "weights", None)
    }
    for call in graph.flattened(quantized).calls:
        layer = call.operation
        if isinstance(layer, Quantizer) or not getattr(layer, "weights", None):
            continue
        shapes = [
            [weight.shape for weight in one.weights]
            for one in (layer, found.get(layer.name))
            if one is not None
        ]
        if len(shapes) < 2 or shapes[0] != shapes[1]:
            raise ValueError(
                "bias correction compares a quantized model with the one that "
                f"quantize_model made it of. Received: {model.name!r}, which has no "
                f"layer like {layer.name!r}"
            )
    return found


def _corrected(seen: graph.Graph, originals: dict[str, Any], images: Any) -> list[str]:
    """Runs both models side by side, layer by layer; names of corrected layers."""
    names = [call.operation.name for call in seen.calls]
    last = {
        id(x): number for number, call in enumerate(seen.calls) for x in call.inputs
    }
    pairs = {
        id(x): (leaf, leaf)
        for x, leaf in zip(
            seen.inputs,
            map(ops.convert_to_tensor, keras.tree.flatten(images)),
            strict=True,
        )
    }
    changed = []
    for number, call in enumerate(seen.calls):
        layer = call.operation
        original = originals.get(layer.name, layer)

        run = partial(_outputs, call, pairs)
        bias = _bias(layer) if names.count(layer.name) == 1 else None
        if bias is not None:
            with _linear(layer), _linear(original):
                exact, coded = run(0, original)[0], run(1, layer)[0]
            error = ops.mean(
                ops.cast(coded, "float32") - ops.cast(exact, "float32"),
                tuple(range(len(exact.shape) - 1)),
            )
            if np.any(ops.convert_to_numpy(error)):
                bias.assign(bias - ops.cast(error, bias.dtype))
                changed.append(layer.name)
        found = zip(run(0, original), run(1, layer), strict=True)
        pairs.update(zip(map(id, call.outputs), found, strict=True))
        for x in call.inputs:
            if last[id(x)] == number:
                pairs.pop(id(x), None)
    return changed


def _outputs(
    call: graph.Call, pairs: dict[int, tuple[Any, Any]], side: int, operation: Any
) -> list[Any]:
    """What a call makes of the unquantized (0) or the quantized tensors (1)."""

    def value(x: Any) -> Any:
        return pairs[id(x)][side] if isinstance(x, keras.KerasTensor) else x

    args, kwargs = keras.tree.map_structure(value, call.arguments)
    if isinstance(operation, Quantizer) and side == 0:
        return [args[0]]
    return keras.tree.flatten(operation(*args, **kwargs))


@contextmanager
def _linear(layer: Any) -> Iterator[None]:
    """Within the context a layer gives what its activation takes."""
    before = getattr(layer, "activation", None)
    if before is None:
        yield
        return
    layer.activation = keras.activations.linear
    try:
        yield
    finally:
        layer.activation = before
