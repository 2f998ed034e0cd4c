"""The calls that a model makes, in the order that they run.

>>> import keras
>>> from dqa_keras.graph import calls
>>> inner = keras.Sequential([keras.Input((4,)), keras.layers.ReLU(name="relu")])
>>> head = keras.layers.Dense(2, name="head")
>>> model = keras.Sequential([keras.Input((4,)), inner, head])
>>> [call.operation.name for call in calls.flatten(model).calls]
['relu', 'head']
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras


class Call(NamedTuple):
    """One call of an operation, on symbolic tensors.

    Args:
        operation: Keras layer or operation.
        arguments: Its arguments, `(args, kwargs)`.
        outputs: The `KerasTensor`s that it gives, as a flat list.
    """

    operation: Any
    arguments: Any
    outputs: list[Any]

    @property
    def inputs(self) -> list[Any]:
        """The `KerasTensor`s that it reads; constants are left out."""
        return symbolic(self.arguments)

    def run(self, values: Mapping[int, Any], operation: Any = None) -> list[Any]:
        """Makes the call on actual tensors, in inference mode.

        Args:
            values: The tensor of each input, by `id` of its `KerasTensor`.
            operation: The operation to call. Defaults to the call's own.

        Returns:
            The tensors of `outputs`, as a flat list.
        """
        operation = operation or self.operation
        args, kwargs = keras.tree.map_structure(
            lambda x: values[id(x)] if isinstance(x, keras.KerasTensor) else x,
            self.arguments,
        )
        if "training" in inspect.signature(operation.call).parameters:
            kwargs = {**kwargs, "training": False}
        return keras.tree.flatten(operation(*args, **kwargs))


class Graph(NamedTuple):
    """All calls of a model in the order that they run.

    Args:
        inputs: The model's inputs, as a flat list of `KerasTensor`s.
        calls: `Call`s. A nested model is replaced by the calls that it makes.
        outputs: The model's outputs, as a flat list of `KerasTensor`s.
    """

    inputs: list[Any]
    calls: list[Call]
    outputs: list[Any]


def symbolic(structure: Any) -> list[Any]:
    """The `KerasTensor`s of a structure, as a flat list."""
    leaves = keras.tree.flatten(structure)
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def has_graph(model: keras.Model) -> bool:
    """Whether a model is Functional or Sequential, so that its calls can be seen."""
    return isinstance(model, keras.Sequential) or hasattr(model, "operations")


def flatten(
    model: keras.Model, input_shapes: Sequence[tuple[int | None, ...]] | None = None
) -> Graph:
    """The calls of a model.

    Args:
        model: Functional or Sequential Keras model; see `has_graph`.
        input_shapes: Shapes to run it on, with the batch axis. Defaults to the
            model's own.

    Returns:
        A `Graph`.
    """
    shapes = input_shapes or [x.shape for x in model.inputs]
    inputs = [
        keras.KerasTensor(shape, dtype=x.dtype)
        for shape, x in zip(shapes, model.inputs, strict=True)
    ]
    calls: list[Call] = []

    def run(model: Any, inputs: Any) -> Any:
        functional = getattr(model, "_functional", None) or model
        return functional._run_through_graph(inputs, operation_fn=recorded)

    def recorded(operation: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if isinstance(operation, keras.Model) and has_graph(operation):
                return run(operation, args[0])
            outputs = operation.compute_output_spec(*args, **kwargs)
            calls.append(Call(operation, (args, kwargs), symbolic(outputs)))
            return outputs

        return call

    packed = keras.tree.pack_sequence_as(model.inputs, inputs)
    return Graph(inputs, calls, symbolic(run(model, packed)))
