"""A small EfficientNet for 32x32 images (Tan and Le, 2019, arXiv 1905.11946)."""

import os

import keras
from keras import layers

from dqa_keras.models.weights import load_weights

# (filters, blocks, stride of the first).
_STAGES = ((16, 1, 1), (24, 2, 2), (48, 2, 2))
_EXPANSION = 4


def _activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.Activation("silu", name=f"{name}_silu")(x)


def _gated(x: keras.KerasTensor, squeezed: int, name: str) -> keras.KerasTensor:
    """Squeeze-and-excite: each channel is scaled by what the means of all say."""
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    gate = layers.Conv2D(squeezed, 1, activation="silu", name=f"{name}_squeeze")(gate)
    gate = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name=f"{name}_excite")(
        gate
    )
    return layers.Multiply(name=f"{name}_gated")([x, gate])


def _block(
    x: keras.KerasTensor, filters: int, stride: int, name: str
) -> keras.KerasTensor:
    width = x.shape[-1]
    y = layers.Conv2D(_EXPANSION * width, 1, use_bias=False, name=f"{name}_expand")(x)
    y = _activated(y, f"{name}_expand")
    y = layers.DepthwiseConv2D(
        3, stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(y)
    y = _activated(y, f"{name}_depthwise")
    y = _gated(y, width // 4, name)
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(y)
    y = layers.BatchNormalization(name=f"{name}_project_bn")(y)
    if stride == 1 and width == filters:
        y = layers.Add(name=f"{name}_add")([x, y])
    return y


def efficientnet_mini(
    weights: str | os.PathLike | None = None,
    *,
    classes: int = 10,
    image_size: tuple[int, int] = (32, 32),
) -> keras.Model:
    """Five blocks of EfficientNet: 17 SiLUs, five gates, 0.06 M parameters.

    Args:
        weights: `"cifar10"` for the trained weights of the package, the path of a
            weight file, or `None` for random weights. Defaults to `None`.
        classes: Integer. Outputs (logits). Defaults to `10`.
        image_size: Height and width. Defaults to `(32, 32)`.

    Returns:
        A Functional Keras model of (batch, height, width, 3) RGB values in 0..255; it
        normalises them itself.

    Raises:
        ValueError: If the file lacks a tensor or one has another shape.

    Example:
    >>> from dqa_keras.models import efficientnet_mini
    >>> efficientnet_mini().output_shape
    (None, 10)
    """
    inputs = keras.Input((*image_size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="normalise")(inputs)
    x = layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name="stem")(x)
    x = _activated(x, "stem")
    for stage, (filters, blocks, first_stride) in enumerate(_STAGES):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = _block(x, filters, stride, f"stage{stage}_{block}")
    x = _activated(layers.Conv2D(128, 1, use_bias=False, name="head")(x), "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="linear")(x)
    model = keras.Model(inputs, outputs, name="efficientnet_mini")
    if weights is not None:
        load_weights(model, weights)
    return model
