"""ResNet-32 for 32x32 images (He et al., 2016, arXiv 1512.03385, section 4.2)."""

import os

import keras
from keras import layers

from dqa_keras.models.weights import load_weights

# What the trained weights expect: pixels / 255, then these a channel.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# The batch norms of the trained weights are PyTorch's.
_EPSILON = 1e-5

# (filters, stride of the first block) of the three stages of five blocks each.
_STAGES = ((16, 1), (32, 2), (64, 2))


def _norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(epsilon=_EPSILON, name=name)(x)


def _conv(
    x: keras.KerasTensor, filters: int, stride: int, name: str
) -> keras.KerasTensor:
    # Padding on both sides, as the trained weights expect: with stride 2, "same" would
    # pad on the right only.
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return layers.Conv2D(filters, 3, stride, use_bias=False, name=name)(x)


def _shortcut(
    x: keras.KerasTensor, filters: int, stride: int, name: str
) -> keras.KerasTensor:
    """Option A of the paper: every second pixel, new channels zero on both sides."""
    if x.shape[-1] == filters:
        return x
    x = layers.AveragePooling2D(1, stride, name=f"{name}_stride")(x)
    side = (filters - x.shape[-1]) // 2
    # ZeroPadding2D pads rows and columns: channels become columns and back.
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height * width, channels, 1), name=f"{name}_flat")(x)
    x = layers.ZeroPadding2D(((0, 0), (side, side)), name=f"{name}_widen")(x)
    return layers.Reshape((height, width, filters), name=f"{name}_shortcut")(x)


def resnet32(
    weights: str | os.PathLike | None = None,
    classes: int = 10,
    *,
    image_size: tuple[int, int] = (32, 32),
) -> keras.Model:
    """ResNet-32 with 31 ReLUs and 0.47 M parameters.

    Args:
        weights: `"cifar10"` for the trained weights of the package; the path of an
            `.npz` that `save_weights` wrote, or of one with PyTorch names and OIHW
            kernels, as `akamaster/pytorch_resnet_cifar10` names them; or `None` for
            random weights. Defaults to `None`.
        classes: Integer. Outputs (logits). Defaults to `10`.
        image_size: Height and width. Defaults to `(32, 32)`.

    Returns:
        A Functional Keras model of (batch, height, width, 3) RGB values in 0..255; it
        normalises them itself.

    Raises:
        ValueError: If the file lacks a tensor or one has another shape.

    Example:
    >>> from dqa_keras.models import resnet32
    >>> model = resnet32()
    >>> model.output_shape, model.count_params()
    ((None, 10), 466426)
    """
    inputs = keras.Input((*image_size, 3), name="image")
    x = layers.Rescaling(
        [1 / (255 * std) for std in STD],
        [-mean / std for mean, std in zip(MEAN, STD, strict=True)],
        name="normalise",
    )(inputs)
    x = _norm(_conv(x, 16, 1, "conv1"), "bn1")
    x = layers.ReLU(name="relu1")(x)
    for stage, (filters, first_stride) in enumerate(_STAGES, start=1):
        for block in range(5):
            name = f"layer{stage}_{block}"
            stride = first_stride if block == 0 else 1
            y = _norm(_conv(x, filters, stride, f"{name}_conv1"), f"{name}_bn1")
            y = layers.ReLU(name=f"{name}_relu1")(y)
            y = _norm(_conv(y, filters, 1, f"{name}_conv2"), f"{name}_bn2")
            x = layers.Add(name=f"{name}_add")([y, _shortcut(x, filters, stride, name)])
            x = layers.ReLU(name=f"{name}_relu2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="linear")(x)
    model = keras.Model(inputs, outputs, name="resnet32")
    if weights is not None:
        load_weights(model, weights, pytorch_name)
    return model


def pytorch_name(layer: str) -> str:
    """What the port that the weights come from calls a layer."""
    return layer.replace("_", ".")
