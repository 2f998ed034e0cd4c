"""Finds linear layers whose output is read more than once, or by what multiplies.

Such an output waits in memory as an activation does, although no activation made it:
MobileNetV2's linear bottlenecks, a residual stream. What a single sum, normalisation or
activation reads takes no memory: it is computed in one go with its reader.

>>> import keras
>>> from keras import layers
>>> inputs = keras.Input((8, 8, 3))
>>> x = layers.ReLU()(layers.Conv2D(8, 3, name="expand")(inputs))
>>> x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1, name="project")(x))
>>> model = keras.Model(inputs, layers.Conv2D(8, 1, name="next")(x))
>>> sorted(kept_linear(model))
['norm']
"""

from collections import defaultdict
from typing import Any

import keras
from keras import layers as keras_layers

from dqa_keras.graph.layer_kinds import is_activation, only_activates

_LINEAR = (
    keras_layers.Add,
    keras_layers.BatchNormalization,
    keras_layers.Conv1D,
    keras_layers.Conv1DTranspose,
    keras_layers.Conv2D,
    keras_layers.Conv2DTranspose,
    keras_layers.Conv3D,
    keras_layers.Conv3DTranspose,
    keras_layers.Dense,
    keras_layers.DepthwiseConv1D,
    keras_layers.DepthwiseConv2D,
    keras_layers.SeparableConv1D,
    keras_layers.SeparableConv2D,
)
# Nothing happens in them when a trained model runs.
_PASSING = (
    keras_layers.Dropout,
    keras_layers.GaussianDropout,
    keras_layers.GaussianNoise,
    keras_layers.SpatialDropout1D,
    keras_layers.SpatialDropout2D,
    keras_layers.SpatialDropout3D,
)


def kept_linear(model: keras.Model) -> frozenset[str]:
    """Names of a model's linear layers whose output must be kept.

    Args:
        model: Functional Keras model. Layers of nested models are not looked at.

    Returns:
        A set of names.
    """
    readers: dict[tuple[int, int, int], list[Any]] = defaultdict(list)
    nodes = [node for depth in model._nodes_by_depth.values() for node in depth]
    for node in nodes:
        for tensor in node.input_tensors:
            readers[_source(tensor)].append(node)

    def all_readers(node: Any) -> list[Any]:
        found = []
        for tensor in node.outputs:
            for reader in readers[_source(tensor)]:
                passes = isinstance(reader.operation, _PASSING)
                found += all_readers(reader) if passes else [reader.operation]
        return found

    def is_kept(node: Any) -> bool:
        found = all_readers(node)
        return len(found) > 1 or not all(map(_goes_along, found))

    return frozenset(
        node.operation.name
        for node in nodes
        if isinstance(node.operation, _LINEAR)
        and not is_activation(node.operation)
        and is_kept(node)
    )


def _source(tensor: Any) -> tuple[int, int, int]:
    operation, node, number = tensor._keras_history
    return id(operation), node, number


def _goes_along(operation: Any) -> bool:
    """Whether an operation is computed in one go with the linear one before it."""
    if isinstance(operation, (keras_layers.Add, keras_layers.BatchNormalization)):
        return True
    if not isinstance(operation, keras.Layer) and type(operation).__name__ == "Add":
        return True
    return only_activates(operation)
