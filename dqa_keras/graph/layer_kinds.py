"""What kind of operation a Keras layer or op is: an activation, a merge, linear, ...

Every operation of a model is of one `Kind`, so that `quantize_model` leaves none out
silently. An op is what `keras.ops` functions and operators such as `x + y` make
of symbolic tensors.

>>> from keras import layers
>>> is_activation(layers.Dense(2, activation="relu")), is_activation(layers.Dense(2))
(True, False)
>>> kind(layers.Flatten()).name
'MOVES'
"""

import enum
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers as keras_layers


class Kind(enum.Enum):
    """Kinds of operations; quantizers go after activations and, if asked, merges."""

    ACTIVATION = enum.auto()
    MERGE = enum.auto()  # joins several tensors: a sum, a product, a concatenation
    LINEAR = enum.auto()  # stored only where `linear_outputs` says so
    MOVES = enum.auto()  # moves, selects or makes values: those before it are stored
    HIDDEN = enum.auto()  # computes with layers of its own that no graph shows
    UNKNOWN = enum.auto()


def _layers(*names: str) -> tuple[Any, ...]:
    """Keras' layers of these names; `{}` stands for 1D, 2D and 3D."""
    every = [name.format(size) for name in names for size in ("1D", "2D", "3D")]
    present = (getattr(keras_layers, name, None) for name in dict.fromkeys(every))
    return tuple(layer for layer in present if layer is not None)


_ACTIVATION_LAYERS = _layers(
    "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"
)
_MERGE_LAYERS = _layers(
    "Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"
)
# Linear layers with a `bias`.
BIASED = _layers(
    "Conv{}", "Conv{}Transpose", "Dense", "DepthwiseConv{}", "SeparableConv{}",
)  # fmt: skip
_LINEAR_LAYERS = (
    *BIASED,
    *_layers(
        "AdaptiveAveragePooling{}", "AveragePooling{}", "BatchNormalization",
        "EinsumDense", "GlobalAveragePooling{}",
    ),
)  # fmt: skip
# Layers that only act in training.
INFERENCE_IDENTITY = _layers(
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout",
    "GaussianNoise", "SpatialDropout{}",
)  # fmt: skip
_MOVING_LAYERS = (
    *INFERENCE_IDENTITY,
    *_layers(
        "AdaptiveMaxPooling{}", "Cropping{}", "Embedding", "Flatten",
        "GlobalMaxPooling{}", "Identity", "InputLayer", "Masking", "MaxPooling{}",
        "Permute", "RepeatVector", "Reshape", "UpSampling{}", "ZeroPadding{}",
    ),
    # They prepare the model's inputs, which are not quantized, or only act in training.
    *_layers(
        "AugMix", "CategoryEncoding", "CenterCrop", "CutMix", "Discretization",
        "HashedCrossing", "Hashing", "IntegerLookup", "MixUp", "Normalization",
        "RandAugment", "Rescaling", "Resizing", "StringLookup", "TextVectorization",
        *(name for name in dir(keras_layers) if name.startswith("Random")),
    ),
)  # fmt: skip
# One layer inside, which is applied as it is.
WRAPPERS = _layers("SpectralNormalization", "TimeDistributed")

# `keras.ops.relu(x)` and its like, called on a symbolic tensor; `ReLU` is what
# `keras.activations.relu(x)` makes.
_ACTIVATION_OPS = {
    "Celu", "Elu", "Gelu", "Glu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh",
    "LeakyRelu", "LogSigmoid", "LogSoftmax", "ReLU", "Relu", "Relu6", "Selu", "Sigmoid",
    "Silu", "SoftShrink", "Softmax", "Softplus", "Softsign", "SparsePlus",
    "SparseSigmoid", "Squareplus", "Tanh", "TanhShrink", "Threshold",
}  # fmt: skip
# Merges where several tensors are symbolic; with a constant linear, or a move.
_JOINING_OPS = {
    "Append", "Concatenate", "Dstack", "Hstack", "Stack", "Vstack", "Where",
}  # fmt: skip
_ARITHMETIC_OPS = {"Add", "Subtract", "Multiply"}
_QUOTIENT_OPS = {"Divide", "DivideNoNan", "TrueDivide"}  # linear in the first alone
_EXTREME_OPS = {"Maximum", "Minimum"}  # with a constant neither linear nor a move
_PRODUCT_OPS = {"Dot", "Einsum", "Inner", "Matmul", "Outer", "Tensordot"}
_LINEAR_OPS = {
    "AdaptiveAveragePool", "AveragePool", "BatchNorm", "Conv", "ConvTranspose",
    "DepthwiseConv", "Mean", "Negative", "Resize", "SeparableConv", "Sum",
}  # fmt: skip
_MOVING_OPS = {
    "AdaptiveMaxPool", "Amax", "Amin", "ArraySplit", "BroadcastTo", "Cast",
    "ConvertToTensor", "Copy", "CropImages", "DepthToSpace", "Diagonal", "Dsplit",
    "EmptyLike", "ExpandDims", "Flip", "Fliplr", "Flipud", "FullLike", "GetItem",
    "Hsplit", "Identity", "Max", "MaxPool", "Min", "Moveaxis", "OnesLike", "Pad",
    "PadImages", "Ravel", "Repeat", "Reshape", "Roll", "Rot90", "SaturateCast",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "StopGradient", "Swapaxes", "Take",
    "TakeAlongAxis", "Tile", "Transpose", "Unstack", "View", "Vsplit", "ZerosLike",
}  # fmt: skip


def is_activation(operation: Any) -> bool:
    """Whether an operation ends in an activation that is not linear."""
    if isinstance(operation, WRAPPERS):
        return is_activation(operation.layer)
    if not hasattr(operation, "activation"):
        return only_activates(operation)
    activation = operation.activation
    if isinstance(activation, keras_layers.Activation):
        return is_activation(activation)
    return not (
        activation in (None, keras.activations.linear)
        or isinstance(activation, keras_layers.Identity)
    )


def only_activates(operation: Any) -> bool:
    """Whether an operation is an activation and computes nothing else."""
    return isinstance(operation, _ACTIVATION_LAYERS) or (
        not isinstance(operation, keras.Layer)
        and type(operation).__name__ in _ACTIVATION_OPS
    )


def is_sum(operation: Any) -> bool:
    """Whether an operation adds: the layer `Add` or the op of `x + y`."""
    return isinstance(operation, keras_layers.Add) or (
        not isinstance(operation, keras.Layer) and type(operation).__name__ == "Add"
    )


def hides_layers(operation: Any) -> bool:
    """Whether a layer computes with layers of its own that a graph does not show.

    Activations given as layers, and the layer of a wrapper, do not count.
    """
    if isinstance(operation, (keras_layers.Lambda, keras_layers.RNN)):
        return True
    if isinstance(operation, WRAPPERS):
        return isinstance(operation.layer, keras.Model) or hides_layers(operation.layer)
    if not isinstance(operation, keras.Layer):
        return False
    activation = getattr(operation, "activation", None)
    return any(
        layer is not activation
        for layer in operation._flatten_layers(include_self=False, recursive=False)
    )


def kind(operation: Any, arguments: Sequence[Any] = ()) -> Kind:
    """The kind of one call of an operation.

    Args:
        operation: Keras layer or op.
        arguments: Its positional arguments; they tell `x + y` from `x + 1`.

    Returns:
        A `Kind`.
    """
    if hides_layers(operation):
        return Kind.HIDDEN
    if is_activation(operation):
        return Kind.ACTIVATION
    if isinstance(operation, keras.Layer):
        return _layer_kind(operation)
    return _op_kind(type(operation).__name__, arguments)


def _layer_kind(layer: keras.Layer) -> Kind:
    if isinstance(layer, WRAPPERS):
        return kind(layer.layer)
    for classes, its_kind in (
        (_MERGE_LAYERS, Kind.MERGE),
        (_LINEAR_LAYERS, Kind.LINEAR),
        # `Activation("linear")` passes its inputs through.
        ((*_MOVING_LAYERS, keras_layers.Activation), Kind.MOVES),
    ):
        if isinstance(layer, classes):
            return its_kind
    return Kind.UNKNOWN


def _op_kind(name: str, arguments: Sequence[Any]) -> Kind:
    leaves = keras.tree.flatten(list(arguments))
    symbolic = [isinstance(leaf, keras.KerasTensor) for leaf in leaves]
    joins = sum(symbolic) > 1
    if name in _MOVING_OPS:
        return Kind.MOVES
    if name in _LINEAR_OPS:
        return Kind.LINEAR
    if name in _JOINING_OPS:
        return Kind.MERGE if joins else Kind.MOVES
    if name in _ARITHMETIC_OPS | _QUOTIENT_OPS | _EXTREME_OPS and joins:
        return Kind.MERGE
    if name in _ARITHMETIC_OPS or (name in _QUOTIENT_OPS and symbolic[:1] == [True]):
        return Kind.LINEAR
    if name in _PRODUCT_OPS and not joins:
        return Kind.LINEAR
    return Kind.UNKNOWN
