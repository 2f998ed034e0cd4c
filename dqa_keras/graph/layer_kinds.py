"""Which operations of a Keras model are nonlinear activations.

>>> from keras import layers
>>> is_activation(layers.Dense(2, activation="relu")), is_activation(layers.Dense(2))
(True, False)
"""

from typing import Any

import keras
from keras import layers as keras_layers

_ACTIVATION_LAYERS = (
    keras_layers.Activation,
    keras_layers.ReLU,
    keras_layers.LeakyReLU,
    keras_layers.PReLU,
    keras_layers.ELU,
    keras_layers.Softmax,
)

# `keras.ops.relu(x)` and its like, called on a symbolic tensor; `ReLU` is what
# `keras.activations.relu(x)` makes.
_ACTIVATION_OPS = {
    "Celu", "Elu", "Gelu", "Glu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh",
    "LeakyRelu", "LogSigmoid", "LogSoftmax", "ReLU", "Relu", "Relu6", "Selu", "Sigmoid",
    "Silu", "SoftShrink", "Softmax", "Softplus", "Softsign", "SparsePlus",
    "SparseSigmoid", "Squareplus", "Tanh", "TanhShrink", "Threshold",
}  # fmt: skip


def is_activation(operation: Any) -> bool:
    """Whether an operation ends in an activation that is not linear."""
    if hasattr(operation, "activation"):
        return operation.activation not in (None, keras.activations.linear)
    return only_activates(operation)


def only_activates(operation: Any) -> bool:
    """Whether an operation is an activation and computes nothing else."""
    return isinstance(operation, _ACTIVATION_LAYERS) or (
        not isinstance(operation, keras.Layer)
        and type(operation).__name__ in _ACTIVATION_OPS
    )
