"""The block of MobileNetV2 and EfficientNet-Lite (arXiv 1801.04381, figure 4)."""

import keras
from keras import layers


def normalized(x: keras.KerasTensor, name: str, relu: bool = True) -> keras.KerasTensor:
    """Batch normalization, and ReLU6 unless `relu` is `False`."""
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x


def inverted_residual(
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    name: str,
    *,
    expansion: int,
    kernel: int,
    depthwise: str,
) -> keras.KerasTensor:
    """Expands channels, filters each by itself, projects them to fewer.

    Args:
        x: Tensor (batch, height, width, channels).
        filters: Integer. Channels of the result.
        stride: Integer. With 1 and as many filters as channels, `x` is added.
        name: What the names of its layers begin with.
        expansion: Integer. How many times the channels of `x` are filtered; 1 leaves
            the expansion out.
        kernel: Integer. Side of the depthwise filters.
        depthwise: What the name of the depthwise layer ends in. Weight files have it.

    Returns:
        Tensor (batch, height / stride, width / stride, filters).
    """
    shortcut = x
    if expansion > 1:
        width = expansion * x.shape[-1]
        x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_expand")(x)
        x = normalized(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{name}_{depthwise}"
    )(x)
    x = normalized(x, f"{name}_{depthwise}")
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(x)
    x = normalized(x, f"{name}_project", relu=False)
    if stride == 1 and shortcut.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x
