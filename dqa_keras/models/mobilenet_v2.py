"""MobileNetV2 for 32x32 images (Sandler et al., 2018, arXiv 1801.04381, table 2)."""

import os

import keras
from keras import layers

from dqa_keras.models.inverted_residual import inverted_residual, normalized
from dqa_keras.models.weights import load_weights

# (expansion, filters, blocks, stride of the first). The paper's net halves a 224x224
# image five times; a 32x32 image is halved three times: at the stages of 24, 64 and 160
# filters, as in the paper, but not at the stem and the stage of 32.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 1),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    weights: str | os.PathLike | None = None,
    *,
    classes: int = 10,
    image_size: tuple[int, int] = (32, 32),
) -> keras.Model:
    """MobileNetV2 1.0 with 35 ReLU6 and 2.3 M parameters.

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
    >>> from dqa_keras.models import mobilenet_v2
    >>> mobilenet_v2().output_shape
    (None, 10)
    """
    inputs = keras.Input((*image_size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="normalise")(inputs)
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="stem")(x)
    x = normalized(x, "stem")
    for stage, (expansion, filters, blocks, first_stride) in enumerate(_STAGES):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = inverted_residual(
                x,
                filters,
                stride,
                f"stage{stage}_{block}",
                expansion=expansion,
                kernel=3,
                depthwise="depthwise",
            )
    x = normalized(layers.Conv2D(1280, 1, use_bias=False, name="head")(x), "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="linear")(x)
    model = keras.Model(inputs, outputs, name="mobilenet_v2")
    if weights is not None:
        load_weights(model, weights)
    return model
