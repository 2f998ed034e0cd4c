"""Finds linear layers whose output must be stored.

A linear output with several consumers, or one that multiplies, takes memory as an
activation does: MobileNetV2's linear bottlenecks, a residual stream. An output with one
fusible consumer (a sum, a normalisation, an activation) is never stored.

>>> import keras
>>> from keras import layers
>>> inputs = keras.Input((8, 8, 3))
>>> x = layers.ReLU()(layers.Conv2D(8, 3, name="expand")(inputs))
>>> x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1, name="project")(x))
>>> model = keras.Model(inputs, layers.Conv2D(8, 1, name="next")(x))
>>> sorted(stored_linear(model))
['norm']
"""

from collections import defaultdict
from typing import Any

import keras
from keras import layers as keras_layers

from dqa_keras.graph.layer_kinds import (
    BIASED,
    INFERENCE_IDENTITY,
    is_activation,
    is_sum,
    only_activates,
)

# Linear layers whose output may have to be stored.
_LINEAR = (*BIASED, keras_layers.Add, keras_layers.BatchNormalization)


def stored_linear(model: keras.Model) -> frozenset[str]:
    """Names of a model's linear layers whose output must be stored.

    Args:
        model: Functional Keras model. Layers of nested models are not looked at.

    Returns:
        A set of names.
    """
    consumers: dict[tuple[int, int, int], list[Any]] = defaultdict(list)
    nodes = [node for depth in model._nodes_by_depth.values() for node in depth]
    for node in nodes:
        for tensor in node.input_tensors:
            consumers[_source(tensor)].append(node)

    def all_consumers(node: Any) -> list[Any]:
        operations = []
        for tensor in node.outputs:
            for consumer in consumers[_source(tensor)]:
                if isinstance(consumer.operation, INFERENCE_IDENTITY):
                    operations += all_consumers(consumer)
                else:
                    operations.append(consumer.operation)
        return operations

    def is_stored(node: Any) -> bool:
        operations = all_consumers(node)
        return len(operations) > 1 or not all(map(_is_fusible, operations))

    return frozenset(
        node.operation.name
        for node in nodes
        if _is_linear(node) and not is_activation(node.operation) and is_stored(node)
    )


def _source(tensor: Any) -> tuple[int, int, int]:
    operation, node, number = tensor._keras_history
    return id(operation), node, number


def _is_linear(node: Any) -> bool:
    operation = node.operation
    if isinstance(operation, _LINEAR):
        return True
    return is_sum(operation) and len(node.input_tensors) > 1


def _is_fusible(operation: Any) -> bool:
    """Whether an operation is fused with the linear one before it."""
    normalizes = isinstance(operation, keras_layers.BatchNormalization)
    return normalizes or is_sum(operation) or only_activates(operation)
