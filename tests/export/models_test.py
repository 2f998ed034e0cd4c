"""Models of common Keras layers and operators, drawn at random, through everything.

Quantize, calibrate, export both ways, run: outputs agree, or one line says which layer
and why.
"""

import re

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

import dqa_keras as dqa
from dqa_keras.export import export_tflite, load_packed
from dqa_keras.export.litert.interpreter import Runner
from dqa_keras.graph.layer_kinds import is_activation

# Measuring what is covered takes longer than the tests themselves.
pytestmark = pytest.mark.no_cover

layers, ops = keras.layers, keras.ops
SIZE = 8  # of an image; steps keep it at 2 or more
EXAMPLES = 5


def conv(filters, activation, **options):
    return lambda x: layers.Conv2D(
        filters, 3, padding="same", activation=activation, **options
    )(x)


def halves(x):
    return ops.split(x, 2, axis=-1) if x.shape[-1] % 2 == 0 else (x, x)


def attended(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(x.shape[-1], 1, activation="hard_sigmoid")(gate)
    return layers.Multiply()([x, gate])


def joined(x):
    first, second = halves(x)
    return ops.concatenate([second, conv(4, "relu")(first)], axis=-1)


def bottleneck(x):
    y = layers.Conv2D(12, 1)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(y))
    return layers.Conv2D(x.shape[-1], 1)(y) + x


def activation(name):
    return lambda x: layers.Activation(name)(layers.Conv2D(6, 1)(x))


def pooled(layer):
    return lambda x: layer(2)(x) if x.shape[1] >= 4 else x


STEPS = {
    "conv relu": conv(8, "relu"),
    "conv strides": lambda x: conv(6, "relu", strides=2)(x) if x.shape[1] > 3 else x,
    "conv dilated": conv(4, "relu6", dilation_rate=2),
    "conv groups": lambda x: conv(x.shape[-1], "relu", groups=x.shape[-1])(x),
    "separable": lambda x: layers.SeparableConv2D(6, 3, activation="relu")(
        layers.ZeroPadding2D(1)(x)
    ),
    "transpose": lambda x: layers.Conv2DTranspose(
        4, 2, strides=2, activation="relu"
    )(x)
    if x.shape[1] <= SIZE
    else x,
    "bottleneck": bottleneck,
    "norm relu": lambda x: layers.ReLU()(layers.BatchNormalization()(conv(6, None)(x))),
    "prelu": lambda x: layers.PReLU(shared_axes=[1, 2])(x),
    "leaky": lambda x: layers.LeakyReLU()(x),
    "layer norm": lambda x: layers.LayerNormalization()(x),
    "attended": attended,
    "joined": joined,
    "glu": lambda x: ops.glu(x) if x.shape[-1] % 2 == 0 else x,
    "residual": lambda x: layers.Add()([x, conv(x.shape[-1], "relu")(x)]),
    "sum": lambda x: ops.relu(x + conv(x.shape[-1], None)(x)),
    "difference": lambda x: layers.Subtract()([x, conv(x.shape[-1], "relu")(x)]),
    "greatest": lambda x: layers.Maximum()([x, conv(x.shape[-1], "tanh")(x)]),
    "product": lambda x: x * conv(x.shape[-1], "sigmoid")(x),
    "scaled": lambda x: ops.relu(x) * 0.5 + 1,
    "clipped": lambda x: ops.clip(x, -1, 1),
    "max pool": pooled(layers.MaxPooling2D),
    "average pool": pooled(layers.AveragePooling2D),
    "nearest": lambda x: pooled(layers.MaxPooling2D)(layers.UpSampling2D(2)(x)),
    "bilinear": lambda x: pooled(layers.AveragePooling2D)(
        layers.UpSampling2D(2, interpolation="bilinear")(x)
    ),
    "cropped": lambda x: layers.Cropping2D(1)(layers.ZeroPadding2D(2)(x))[
        :, 1:-1, 1:-1
    ],
    "transposed": lambda x: layers.Permute((2, 1, 3))(x),
    "reversed channels": lambda x: ops.flip(x, axis=-1),
    "dropout": lambda x: layers.Dropout(0.5)(layers.GaussianNoise(0.1)(x)),
    "dense": lambda x: layers.Dense(6, activation="relu")(x),
    "nested": lambda x: keras.Sequential(
        [keras.Input(x.shape[1:]), conv_layer(4), layers.ReLU()]
    )(x),
    **{
        name: activation(name)
        for name in (
            "elu", "gelu", "hard_silu", "hard_sigmoid", "mish", "selu", "sigmoid",
            "silu", "softmax", "softplus", "softsign", "tanh",
        )
    },
}  # fmt: skip


def conv_layer(filters):
    return layers.Conv2D(filters, 3, padding="same")


def flat(x):
    return layers.Dense(3)(layers.Flatten()(x))


HEADS = {
    "flat": flat,
    "pooled": lambda x: layers.Dense(3, activation="softmax")(
        layers.GlobalAveragePooling2D()(x)
    ),
    "map": lambda x: layers.Conv2D(3, 1)(x),
    "two": lambda x: {"scores": flat(x), "map": layers.Conv2D(2, 1, name="mask")(x)},
    "hidden": lambda x: layers.Dense(2)(
        layers.Dense(8, activation="relu")(layers.GlobalMaxPooling2D()(x))
    ),
}


def built(steps, head):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((SIZE, SIZE, 4))
    for step in steps:
        x = STEPS[step](x)
    return keras.Model(inputs, HEADS[head](x))


def assert_clear(error, model):
    """Fails unless an error is one line that names a layer or an op, and a reason."""
    text = str(error)
    assert type(error) is ValueError
    assert "\n" not in text
    named = any(layer.name in text for layer in model._flatten_layers())
    assert named or re.search(r"\([A-Z_0-9]+\): \w+", text), text


def run_packed(path, images):
    interpreter = load_packed(path)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    for image in images:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        yield [
            interpreter.get_tensor(detail["index"])
            for detail in interpreter.get_output_details()
        ]


def run_builtin(path, images):
    run = Runner(path.read_bytes())
    for image in images:
        yield run(image[None])


def relative_error(model, outputs, images):
    """Root mean square of what outputs lack, in parts of Keras' outputs."""
    lacks = energy = 0.0
    for image, computed in zip(images, outputs, strict=True):
        wanted = keras.tree.flatten(model(image[None]))
        for ours, theirs in zip(computed, wanted, strict=True):
            theirs = np.asarray(theirs, np.float64)
            assert ours.shape == theirs.shape
            lacks += np.sum((ours - theirs) ** 2)
            energy += np.sum(theirs**2)
    return np.sqrt(lacks / max(energy, 1e-12))


def check(steps, head, folder):
    """Exports a model both ways and runs what came out."""
    model = built(steps, head)
    images = np.random.default_rng(0).normal(size=(12, SIZE, SIZE, 4))
    images = images.astype(np.float32)
    if not any(is_activation(operation) for operation in model.operations):
        return
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=6, extra_bits=2))
    dqa.calibrate(quantized, images, verbose=0)
    # A flipped code is seldom; int8 weights and 7-bit codes are everywhere: of 19 such
    # models the worst lacked 0.041. With scales 10 % off, or a sum's second part 20 %,
    # one of those drawn here lacks 0.14.
    for mode, run, limit in (
        ("builtin", run_builtin, 0.02),
        ("packed", run_packed, 0.08),
    ):
        path = folder / f"{mode}.tflite"
        path.unlink(missing_ok=True)
        error = None
        try:
            export_tflite(quantized, path, mode=mode, samples=images)
        except ValueError as raised:
            error = raised
        if error is None:
            assert relative_error(quantized, run(path, images[:4]), images[:4]) < limit
        else:
            assert_clear(error, quantized)
            assert not path.exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)  # fmt: skip
@hypothesis.given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=5),
    st.sampled_from(sorted(HEADS)),
)
@hypothesis.example(["conv relu", "residual", "sum", "joined"], "map")
def test_any_model_exports_or_says_why_not(folder, steps, head):
    check(steps, head, folder)
