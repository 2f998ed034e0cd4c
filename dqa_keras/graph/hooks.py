"""Runs a model and reports what reaches each of its quantizers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from dqa_keras.backend.replicas import replicated
from dqa_keras.layers import Quantizer, quantizer_layers

# Runs inside the graph in place of a quantizer. Its inputs are the layer and the
# activation (N, ..., C); its results are the report and the layer's output.
Tap = Callable[[Quantizer, Any], tuple[Any, Any]]


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
    """`observing_replicas` for one batch at a time."""
    observe = observing_replicas(model, tap, None)
    return lambda x: observe([x])[0]


def observing_replicas(
    model: keras.Model, tap: Tap, strategy: Any
) -> Callable[[list[Any]], list[list[tuple[Quantizer, Any]]]]:
    """A function that runs the model and returns what `tap` reported.

    The model runs in inference mode. Activations that `tap` does not report are freed
    as the graph runs, so memory holds the reports and not every activation.

    Args:
        model: Keras model with quantizing layers.
        tap: Function of a layer and the tensor (N, ..., C) in front of it.
        strategy: As for `backend.replicas.replicated`.

    Returns:
        A function of a list of batches, at most one per replica. For each batch it
        gives one `(layer, report)` per call of a quantizer, in order; a shared layer is
        called more than once.
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

    run = replicated(forward, strategy)

    def observe(batches: list[Any]) -> list[list[tuple[Quantizer, Any]]]:
        results = keras.tree.map_structure(keras.ops.convert_to_numpy, run(batches))
        return [list(zip(order, reports, strict=True)) for reports in results]

    return observe
