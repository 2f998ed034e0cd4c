"""Small networks with what modern ones are made of, by name; all weights random."""

from collections.abc import Callable

import keras
from keras import layers, ops


def _c2f(x, filters, repeats):
    x = layers.Conv2D(filters, 1, activation="silu")(x)
    parts = list(ops.split(x, 2, axis=-1))
    for _ in range(repeats):
        y = layers.Conv2D(filters // 2, 3, padding="same", activation="silu")(parts[-1])
        y = layers.Conv2D(filters // 2, 3, padding="same", activation="silu")(y)
        parts.append(layers.Add()([parts[-1], y]))
    return layers.Conv2D(filters, 1, activation="silu")(layers.Concatenate()(parts))


def yolov8_c2f():
    """Stem, two C2f blocks, SPPF and a head, with SiLU."""
    inputs = keras.Input((64, 64, 3))
    x = layers.Conv2D(16, 3, 2, padding="same", activation="silu")(inputs)
    x = skip = _c2f(
        layers.Conv2D(32, 3, 2, padding="same", activation="silu")(x), 32, 2
    )
    x = _c2f(layers.Conv2D(64, 3, 2, padding="same", activation="silu")(x), 64, 1)
    pools = [layers.Conv2D(32, 1, activation="silu")(x)]
    for _ in range(3):
        pools.append(layers.MaxPooling2D(5, 1, padding="same")(pools[-1]))
    x = layers.Conv2D(64, 1, activation="silu")(layers.Concatenate()(pools))
    x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
    return keras.Model(inputs, layers.Conv2D(20, 1)(_c2f(x, 32, 1)))


def _shuffled(x):
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, 2, channels // 2))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    return ops.reshape(x, (-1, height, width, channels))


def shufflenet_v2():
    """Units that split, and one that halves the image."""

    def branch(x, filters, stride):
        x = layers.Conv2D(filters, 1, activation="relu")(x)
        x = layers.DepthwiseConv2D(3, stride, padding="same")(x)
        return layers.Conv2D(filters, 1, activation="relu")(x)

    inputs = keras.Input((64, 64, 3))
    x = layers.Conv2D(24, 3, 2, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    y = layers.DepthwiseConv2D(3, 2, padding="same")(x)
    y = layers.Conv2D(58, 1, activation="relu")(y)
    x = _shuffled(layers.Concatenate()([y, branch(x, 58, 2)]))
    for _ in range(3):
        left, right = ops.split(x, 2, axis=-1)
        x = _shuffled(layers.Concatenate()([left, branch(right, 58, 1)]))
    x = layers.Conv2D(128, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def resnext():
    """Blocks of 32 groups."""
    inputs = keras.Input((64, 64, 3))
    x = layers.Conv2D(64, 7, 2, padding="same", activation="relu")(inputs)
    for width, stride in ((128, 1), (128, 1), (256, 2)):
        y = layers.Conv2D(width, 1, activation="relu")(x)
        y = layers.Conv2D(
            width, 3, stride, padding="same", groups=32, activation="relu"
        )(y)
        y = layers.Conv2D(2 * width, 1)(y)
        if x.shape[-1] != 2 * width or stride > 1:
            x = layers.Conv2D(2 * width, 1, stride)(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def dcgan():
    """A generator with ReLU and tanh, from a vector."""
    inputs = keras.Input((64,))
    x = layers.Reshape((4, 4, 64))(layers.Dense(1024, activation="relu")(inputs))
    for filters in (32, 16):
        x = layers.Conv2DTranspose(filters, 4, 2, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2DTranspose(3, 4, 2, padding="same", activation="tanh")(x)
    return keras.Model(inputs, x)


def _pixel_shuffle(x, factor):
    _, height, width, channels = x.shape
    filters = channels // factor**2
    x = ops.reshape(x, (-1, height, width, factor, factor, filters))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, height * factor, width * factor, filters))


def espcn():
    """Super-resolution: depth to space at the end."""
    inputs = keras.Input((32, 32, 1))
    x = layers.Conv2D(64, 5, padding="same", activation="tanh")(inputs)
    x = layers.Conv2D(32, 3, padding="same", activation="tanh")(x)
    x = layers.Conv2D(9, 3, padding="same")(x)
    return keras.Model(inputs, _pixel_shuffle(x, 3))


def tiny_yolo():
    """Convolutions with LeakyReLU, one of them behind a padding at two sides."""
    inputs = x = keras.Input((64, 64, 3))
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.LeakyReLU(0.1)(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.MaxPooling2D(2, 1)(x)
    return keras.Model(inputs, layers.Conv2D(30, 1)(x))


def squeeze_excite():
    """Gates of hard_sigmoid, one number a channel."""
    inputs = keras.Input((64, 64, 3))
    x = layers.Conv2D(32, 3, 2, padding="same", activation="hard_silu")(inputs)
    for _ in range(2):
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(8, 1, activation="relu")(y)
        y = layers.Conv2D(32, 1, activation="hard_sigmoid")(y)
        x = layers.Multiply()([x, y])
        x = layers.Conv2D(32, 3, padding="same", activation="hard_silu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def wavenet():
    """Dilated causal convolutions with gates."""
    inputs = keras.Input((256, 1))
    x = layers.Conv1D(16, 2, padding="causal")(inputs)
    skips = []
    for dilation in (1, 2, 4, 8):
        options = {"padding": "causal", "dilation_rate": dilation}
        y = layers.Multiply()(
            [
                layers.Conv1D(16, 2, activation="tanh", **options)(x),
                layers.Conv1D(16, 2, activation="sigmoid", **options)(x),
            ]
        )
        skips.append(layers.Conv1D(16, 1)(y))
        x = layers.Add()([x, layers.Conv1D(16, 1)(y)])
    x = layers.ReLU()(layers.Add()(skips))
    return keras.Model(inputs, layers.Conv1D(8, 1)(x))


def groupnorm_unet():
    """A U-Net of one level with GroupNormalization and SiLU."""

    def block(x, filters):
        x = layers.Conv2D(filters, 3, padding="same")(x)
        return layers.Activation("silu")(layers.GroupNormalization(4)(x))

    inputs = keras.Input((32, 32, 3))
    skip = block(inputs, 16)
    x = layers.UpSampling2D()(block(layers.MaxPooling2D()(skip), 32))
    x = block(layers.Concatenate()([x, skip]), 16)
    return keras.Model(inputs, layers.Conv2D(4, 1)(x))


def prelu_by_position():
    """PReLU with a slope for each value."""
    inputs = keras.Input((32, 32, 3))
    random = keras.initializers.RandomUniform(0, 0.5, seed=0)
    x = inputs
    for filters in (16, 16):
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.PReLU(alpha_initializer=random)(x)
    return keras.Model(inputs, layers.Conv2D(4, 1)(x))


def crnn():
    """Convolutions, then recurrence over columns."""
    inputs = keras.Input((32, 64, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(
        layers.MaxPooling2D()(x)
    )
    x = layers.MaxPooling2D((16, 2))(x)
    x = layers.Reshape((16, 32))(x)
    x = layers.LSTM(16, return_sequences=True, unroll=True)(x)
    return keras.Model(inputs, layers.Dense(12)(x))


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "YOLOv8 blocks": yolov8_c2f,
    "ShuffleNetV2": shufflenet_v2,
    "ResNeXt": resnext,
    "DCGAN": dcgan,
    "ESPCN": espcn,
    "Tiny YOLO": tiny_yolo,
    "Squeeze and excite": squeeze_excite,
    "WaveNet": wavenet,
    "GroupNorm U-Net": groupnorm_unet,
    "PReLU by position": prelu_by_position,
    "CRNN": crnn,
}
