"""Runs a model and hands back what reaches each quantizer on the way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from dqa_keras.layers import Quantizer, quantizer_layers

# Runs inside the graph, in place of a layer: gives what to report of the activation in
# front of it, and what to pass on.
Tap = Callable[[Quantizer, Any], tuple[Any, Any]]


def compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one batch, as one graph where the backend has graphs to offer.

    The graph takes batches of any size, so that it is traced once; once more, with that
    size left open, if images of another size arrive.
    """
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()(function)
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    graph: Any = None
    signature: Any = None

    def fits(x: Any) -> bool:
        pairs = zip(keras.tree.flatten(signature), keras.tree.flatten(x), strict=True)
        return all(spec.is_compatible_with(tensor) for spec, tensor in pairs)

    def run(x: Any) -> Any:
        nonlocal graph, signature
        x = keras.tree.map_structure(tf.convert_to_tensor, x)
        if graph is None or not fits(x):
            wanted = keras.tree.map_structure(
                lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), x
            )
            signature = keras.tree.map_structure(
                lambda old, new: old.most_specific_common_supertype([new]) or new,
                signature or wanted,
                wanted,
            )
            graph = tf.function(function, input_signature=[signature], autograph=False)
        return graph(x)

    return run


@contextmanager
def hooked(
    layers: list[Quantizer], hook: Callable[[Quantizer, Any], Any]
) -> Iterator[None]:
    """Within the context, `hook(layer, inputs)` stands in for each layer's call."""
    for layer in layers:
        layer.hook = hook
    try:
        yield
    finally:
        for layer in layers:
            layer.hook = None


def observing(
    model: keras.Model, tap: Tap
) -> Callable[[Any], list[tuple[Quantizer, Any]]]:
    """A function that runs the model and returns what `tap` reported.

    The model runs in inference mode. Activations that `tap` does not report are freed
    as the graph runs, so memory holds the reports and not every activation.

    Args:
        model: Keras model with quantizing layers.
        tap: Function of a layer and the tensor (N, ..., C) in front of it.

    Returns:
        A function of one batch that gives one `(layer, report)` for each call of a
        quantizer, in order; a shared layer is called more than once.
    """
    layers = quantizer_layers(model)
    order: list[Quantizer] = []

    def forward(x: Any) -> list[Any]:
        seen: list[tuple[Quantizer, Any]] = []

        def hook(layer: Quantizer, inputs: Any) -> Any:
            report, outputs = tap(layer, inputs)
            seen.append((layer, report))
            return outputs

        with hooked(layers, hook):
            model(x, training=False)
        order[:] = [layer for layer, _ in seen]
        return [report for _, report in seen]

    run = compiled(forward)

    def observe(x: Any) -> list[tuple[Quantizer, Any]]:
        reports = keras.tree.map_structure(keras.ops.convert_to_numpy, run(x))
        return list(zip(order, reports, strict=True))

    return observe
