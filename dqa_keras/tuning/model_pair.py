"""A quantized model beside the one that it was made of."""

from typing import Any

import keras

from dqa_keras.analysis import storage
from dqa_keras.graph import calls
from dqa_keras.layers import Quantizer, quantizer_layers


def originals(
    quantized: keras.Model, model: keras.Model, purpose: str
) -> dict[str, Any]:
    """The layers of the unquantized model that have weights, by name.

    Args:
        quantized: What `quantize_model` made of `model`.
        model: Keras model.
        purpose: What they are compared for, as errors name it.

    Returns:
        Dictionary from names to layers.

    Raises:
        ValueError: If a quantizer is not calibrated, a model is subclassed, or the
            models do not belong together.
    """
    for layer in quantizer_layers(quantized):
        layer.table()  # raises if the layer is not calibrated
    if not (calls.has_graph(model) and calls.has_graph(quantized)):
        raise ValueError(
            f"{purpose} needs Functional or Sequential models: the layers of a "
            f"subclassed one are out of sight. Received: {type(model).__name__}"
        )
    layers = {
        call.operation.name: call.operation
        for call in calls.flatten(model).calls
        if _shapes(call.operation)
    }
    for call in calls.flatten(quantized).calls:
        layer = call.operation
        if isinstance(layer, Quantizer):
            continue
        if _shapes(layer) != _shapes(layers.get(layer.name)):
            raise ValueError(
                "a quantized model is compared with the one that "
                f"quantize_model made it of. Received: {model.name!r}, which has no "
                f"layer like {layer.name!r}"
            )
    return layers


def _shapes(operation: Any) -> list[Any]:
    return [weight.shape for weight in getattr(operation, "weights", ())]


def run_unquantized(
    call: calls.Call, values: dict[int, Any], layers: dict[str, Any]
) -> list[Any]:
    """Outputs that a call of the quantized model has in the unquantized one.

    Args:
        call: `Call` of the quantized model.
        values: Dictionary from a tensor's `id` to its value in the unquantized model.
        layers: What `originals` gave.

    Returns:
        List of tensors. A quantizer's are its inputs.
    """
    layer = call.operation
    if isinstance(layer, Quantizer):
        return [values[id(x)] for x in call.inputs]
    return call.run(values, layers.get(layer.name, layer))


def count_again(quantized: keras.Model, data: Any, batch_size: int = 32) -> None:
    """Counts the codes of every quantizer anew: other activations, other codes.

    Args:
        quantized: Keras model with calibrated quantizers.
        data: Inputs, as for `calibrate`.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.
    """
    counts = storage.counted(quantized, data, batch_size=batch_size)
    for layer in quantizer_layers(quantized):
        layer.assign(counts[layer.name])
