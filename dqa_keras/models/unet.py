"""U-Net for street scenes (Ronneberger et al., 2015, arXiv 1505.04597, section 2)."""

import os

import keras
from keras import layers

from dqa_keras.models.weights import load_weights

# CamVid as SegNet splits it; void pixels have no class of their own.
CLASSES = 11


def _block(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions, each with batch norm and ReLU."""
    for number in (1, 2):
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, name=f"{name}_conv{number}"
        )(x)
        x = layers.BatchNormalization(name=f"{name}_bn{number}")(x)
        x = layers.ReLU(name=f"{name}_relu{number}")(x)
    return x


def unet(
    weights: str | os.PathLike | None = None,
    *,
    filters: int = 16,
    depth: int = 4,
    classes: int = CLASSES,
    image_size: tuple[int, int] = (180, 240),
) -> keras.Model:
    """A U-Net with batch norm, nearest upsampling and concatenated skips.

    Args:
        weights: `"camvid"` for the trained weights of the package, the path of a weight
            file, or `None` for random weights. Defaults to `None`.
        filters: Integer. Filters of the first level; each level doubles them.
            Defaults to `16`.
        depth: Integer. How often the image is halved. Defaults to `4`.
        classes: Integer. Outputs (logits) a pixel. Defaults to `11`.
        image_size: Height and width; padded inside to a multiple of `2^depth`.
            Defaults to `(180, 240)`.

    Returns:
        A Functional Keras model of (batch, height, width, 3) RGB values in 0..255 that
        gives (batch, height, width, classes); it normalises the image itself.

    Raises:
        ValueError: If the file lacks a tensor or one has another shape.

    Example:
    >>> from dqa_keras.models import unet
    >>> unet().output_shape
    (None, 180, 240, 11)
    """
    inputs = keras.Input((*image_size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="normalise")(inputs)
    missing = [-size % 2**depth for size in image_size]
    margins = [(size // 2, size - size // 2) for size in missing]
    x = layers.ZeroPadding2D(margins, name="pad")(x)
    skips = []
    for level in range(depth):
        x = _block(x, filters * 2**level, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
    x = _block(x, filters * 2**depth, "bottom")
    for level in reversed(range(depth)):
        x = layers.UpSampling2D(name=f"up{level}_resize")(x)
        x = layers.Concatenate(name=f"up{level}_concat")([x, skips[level]])
        x = _block(x, filters * 2**level, f"up{level}")
    x = layers.Conv2D(classes, 1, name="scores")(x)
    outputs = layers.Cropping2D(margins, name="crop")(x)
    model = keras.Model(inputs, outputs, name="unet")
    if weights is not None:
        load_weights(model, weights)
    return model
