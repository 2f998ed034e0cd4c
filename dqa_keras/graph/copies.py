"""Copies of operations and of what they hold."""

import inspect
from typing import Any

import keras


def copied_operation(operation: Any) -> Any:
    """A copy without weights; functions are handed over instead of serialised.

    Keras cannot serialise a user's function or activation layer that is not
    registered, nor a lambda.
    """
    config = operation.get_config()
    kept = {}
    for name in ("activation", "function"):
        value = vars(operation).get(name)  # a recurrent layer's is its cell's property
        if name in config and inspect.isfunction(value):
            kept[name] = value
        elif name in config and isinstance(value, keras.Layer):
            kept[name] = copied_operation(value)
    for name in kept:
        config[name] = keras.saving.serialize_keras_object(keras.activations.linear)
    copy = type(operation).from_config(config)
    for name, value in kept.items():
        setattr(copy, name, value)
    return copy


def copied_argument(argument: Any) -> Any:
    """A copy of an optimizer, loss or metric; functions and names as they are."""
    if hasattr(argument, "get_config"):
        return type(argument).from_config(argument.get_config())
    return argument


def build_activation(layer: Any, outputs: Any) -> None:
    """Builds an activation that is a layer. Keras builds it when it first computes."""
    activation = getattr(layer, "activation", None)
    if isinstance(activation, keras.Layer) and not activation.built:
        activation.build(outputs.shape)


def copy_state(original: keras.Layer, copy: keras.Layer) -> None:
    """Copies weights and whatever else a layer saves (`Normalization` does)."""
    for source, target in zip(
        original._flatten_layers(), copy._flatten_layers(), strict=True
    ):
        state: dict[str, Any] = {}
        source.save_own_variables(state)
        if state:
            target.load_own_variables(
                {name: keras.ops.convert_to_numpy(v) for name, v in state.items()}
            )
