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


def replicated(
    function: Callable[[Any], Any], strategy: Any
) -> Callable[[list[Any]], list[Any]]:
    """A function of one batch a replica, all computed at once.

    Args:
        function: Function of one batch.
        strategy: `tf.distribute.Strategy` whose replicas on this machine compute, or
            None for one after another on one device.

    Returns:
        A function of a list of batches, at most one a replica, that gives a list of
        what `function` gives of each.
    """
    replicas = replica_count(strategy)
    if replicas == 1:
        run = compiled(function)
        return lambda batches: [run(x) for x in batches]
    import tensorflow as tf

    @tf.function(reduce_retracing=True, autograph=False)
    def step(x: Any) -> Any:
        return strategy.run(function, args=(x,))

    def on_each(batches: list[Any]) -> list[Any]:
        # Replicas without a batch of their own repeat the last one.
        given = [batches[min(i, len(batches) - 1)] for i in range(replicas)]
        x = strategy.experimental_distribute_values_from_function(
            lambda context: keras.tree.map_structure(
                tf.convert_to_tensor,
                given[context.replica_id_in_sync_group % replicas],
            )
        )
        outputs = step(x)
        return [
            keras.tree.map_structure(
                lambda value, i=i: strategy.experimental_local_results(value)[i],
                outputs,
            )
            for i in range(len(batches))
        ]

    return on_each


def replica_count(strategy: Any) -> int:
    """How many replicas a `tf.distribute.Strategy`, or None, has on this machine."""
    return len(strategy.extended.worker_devices) if strategy is not None else 1


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
        strategy: As for `replicated`.

    Returns:
        A function of a list of batches, at most one a replica, that gives for each
        batch one `(layer, report)` for each call of a quantizer, in order; a shared
        layer is called more than once.
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
        found = keras.tree.map_structure(keras.ops.convert_to_numpy, run(batches))
        return [list(zip(order, reports, strict=True)) for reports in found]

    return observe
