"""A custom layer as the graph of the layers that it calls.

>>> import keras
>>> class Block(keras.layers.Layer):
...     def __init__(self, **options):
...         super().__init__(**options)
...         self.dense = keras.layers.Dense(4, activation="relu", name="dense")
...     def call(self, x):
...         return x + self.dense(x)
>>> block = Block(name="block")
>>> _ = block(keras.Input((4,)))
>>> [type(step).__name__ for step in expanded(block).operations[1:]]
['Dense', 'Add']
"""

import inspect
from typing import Any

import keras

from dqa_keras.graph import copies


def expanded(layer: Any) -> keras.Model | None:
    """A Functional model that computes what a custom layer computes.

    Args:
        layer: Keras layer, called on symbolic tensors. It is not changed.

    Returns:
        A model with copies of the layer's weights. None if the layer computes more than
        the layers that it calls: its `call` has weights of its own, depends on
        `training`, takes other arguments than tensors, or is not made of Keras' layers
        and ops.
    """
    if type(layer).__module__.split(".")[0] == "keras" or not layer.built:
        return None
    if layer._trainable_variables or layer._non_trainable_variables:
        return None
    node = layer._inbound_nodes[0]
    named = node.arguments.kwargs.values()
    if len(node.arguments.args) != 1 or any(value is not None for value in named):
        return None
    (arguments,) = node.arguments.args
    leaves = keras.tree.flatten(arguments)
    if not all(isinstance(x, keras.KerasTensor) for x in leaves):
        return None
    if any(x.dtype != layer.compute_dtype for x in leaves):
        return None  # the layer casts its inputs, a graph would not
    try:
        return _traced(layer, arguments, node.output_tensors)
    except Exception:  # a call may raise anything here: it is then left as it is
        return None


def _traced(layer: Any, arguments: Any, outputs: list[Any]) -> keras.Model | None:
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype), arguments
    )
    copy = copies.copied_operation(layer)
    copy(inputs)
    copies.copy_state(layer, copy)
    graph = keras.Model(inputs, copy.call(inputs), name=layer.name)
    if "training" in inspect.signature(copy.call).parameters:
        trained = keras.Model(inputs, copy.call(inputs, training=True))
        if _computes(trained) != _computes(graph):
            return None
    for operation in graph.operations:
        copies.copied_operation(operation)  # raises where Keras cannot
    same_outputs = _specs(outputs) == _specs(graph.outputs)
    # A weight that only an op reads would be a constant of the graph.
    same_weights = {id(w) for w in copy.weights} == {id(w) for w in graph.weights}
    return graph if same_outputs and same_weights else None


def _specs(tensors: list[Any]) -> list[tuple[Any, str]]:
    return [(x.shape, x.dtype) for x in tensors]


def _computes(model: keras.Model) -> list[type]:
    return [type(operation) for operation in model.operations]
