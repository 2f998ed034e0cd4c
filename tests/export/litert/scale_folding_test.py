"""Scalings that went into weights, against the file in which they are still ops.

Scales that are powers of two move without rounding: outputs must be equal to the bit.
"""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite, file_report
from dqa_keras.export.litert import flatbuffer, verification
from dqa_keras.export.litert.conversion import convert
from dqa_keras.export.litert.interpreter import Runner
from dqa_keras.layers import quantizer_layers

layers = keras.layers


def conv(x, filters=6, activation="relu", **options):
    return layers.Conv2D(filters, 3, padding="same", activation=activation, **options)(
        x
    )


def chain(x):
    return conv(conv(conv(x), 5), 3, activation=None)


def relu6_around_depthwise(x):
    x = layers.ReLU(6.0)(conv(x, activation=None))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, strides=2, padding="same")(x))
    return layers.Conv2D(4, 1)(x)


def residual(x):
    x = skip = conv(x)
    x = conv(conv(x), activation=None)
    x = layers.ReLU()(layers.Add()([x, skip]))
    return conv(x, 3, activation=None)


def skips(x):
    x = skip = conv(x)
    x = conv(layers.MaxPooling2D(2)(x), 8)
    x = conv(layers.Conv2DTranspose(5, 2, 2, activation="relu")(x))
    return conv(layers.Concatenate()([x, skip]), 3, activation=None)


def poolings(x):
    x = layers.AveragePooling2D(2)(conv(x))
    x = conv(layers.ZeroPadding2D(1)(x), 7)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(conv(x)))


def dense(x):
    x = layers.Dense(12, activation="relu")(layers.Flatten()(x))
    return layers.Dense(3)(layers.Dense(8, activation="relu")(x))


def signed(x):
    x = dqa.layers.DQA(bits=4)(conv(x, activation=None))
    x = layers.Add()([conv(x, activation=None), layers.Conv2D(6, 1)(x)])
    return conv(dqa.layers.DQA(bits=4)(x), 3, activation=None)


def two_bounds(x):
    # One product, two quantizers behind it.
    x = layers.ReLU(6.0)(conv(x, activation=None))
    x = layers.Concatenate()([dqa.layers.DQA(bits=n)(x) for n in (2, 5)])
    return conv(x, 3, activation=None)


def shared_kernel(x):
    twice = layers.Conv2D(6, 3, padding="same", activation="relu")
    return conv(twice(conv(twice(conv(x)))), 3, activation=None)


def also_an_output(x):
    x = conv(x)
    return [x, conv(x, 3, activation=None)]


def rows_as_channels(x):
    # A kernel of the right size whose last axis is not the quantizer's.
    x = layers.Permute((3, 2, 1))(conv(x, 8))
    return conv(x, 3, activation=None)


def doubled(x):
    # An activation that ends in a product with a constant, as hard_sigmoid does.
    return conv(dqa.layers.DQA(bits=4)(keras.ops.relu(conv(x, 6, None)) * 2), 3, None)


def quantized_twice(x):
    x = dqa.layers.DQA(bits=3)(dqa.layers.DQA(bits=5)(conv(x, activation=None)))
    return conv(x, 3, activation=None)


def split(x):
    first, second = keras.ops.split(layers.MaxPooling2D(2)(conv(x)), 2, axis=-1)
    return conv(layers.Concatenate()([first, conv(second, 3)]), 3, activation=None)


def unstacked(x):
    x = keras.ops.unstack(layers.Reshape((64, 2, 3))(conv(x)), axis=2)
    return layers.Dense(3)(layers.Flatten()(layers.Concatenate()(x)))


def split_into_gates(x):
    x = dqa.layers.DQA(bits=4)(keras.ops.glu(conv(x)))
    return conv(x, 3, activation=None)


def quantized(body, images):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 6))
    model = keras.Model(inputs, body(inputs))
    if not quantizer_layers(model):
        config = dqa.DQAConfig(bits=3, extra_bits=2, important_fraction=0.4)
        model = dqa.quantize_model(model, config)
    dqa.calibrate(model, images, verbose=0)
    for layer in quantizer_layers(model):
        layer.set_scale(2.0 ** np.floor(np.log2(layer.scale.numpy())))
    if body is two_bounds:
        for layer in quantizer_layers(model):
            layer.set_scale(np.full(6, 0.25, np.float32))
    return model


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return (3 * random.normal(size=(8, 8, 8, 6))).astype(np.float32)


@pytest.mark.parametrize(
    ("body", "products"),
    [
        (chain, 0),
        (relu6_around_depthwise, 0),
        (residual, 1),  # the skip's
        (skips, 0),
        (poolings, 0),
        (dense, 0),
        (signed, 0),
        (two_bounds, 1),
        (shared_kernel, 4),
        (also_an_output, 1),
        (rows_as_channels, 1),
        (doubled, 1),  # its own
        (quantized_twice, 1),
        (split, 1),
        (unstacked, 1),
        (split_into_gates, 2),
    ],
)
def test_outputs_stay_the_same(body, products, images, tmp_path):
    model = quantized(body, images)
    plain = convert(model, "float32")
    report = export_tflite(model, tmp_path / "m.tflite", samples=images[:2])
    assert report.ops.get("MUL", 0) == products
    assert flatbuffer.op_names(flatbuffer.parse(plain)).count("MUL") > products
    before, after = Runner(plain), Runner((tmp_path / "m.tflite").read_bytes())
    for image in images:
        expected = sorted(before(image[None]), key=np.size)
        outputs = sorted(after(image[None]), key=np.size)
        for ours, theirs in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_skip_is_kept_as_codes_until_the_sum(images, tmp_path):
    export_tflite(quantized(residual, images), tmp_path / "m.tflite", samples=images)
    model = flatbuffer.parse((tmp_path / "m.tflite").read_bytes())
    names = flatbuffer.op_names(model)
    assert names[names.index("MUL") + 1] == "ADD"


def test_constants_that_nothing_reads_are_gone(images, tmp_path):
    model = quantized(chain, images)
    report = export_tflite(model, tmp_path / "m.tflite", samples=images)
    unpacked = flatbuffer.parse((tmp_path / "m.tflite").read_bytes())
    kernels = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    held = sum(len(b.data) for b in unpacked.buffers if b.data is not None)
    assert held < 4 * kernels + 8000  # tables and bounds
    assert report.size < len(convert(model, "float32")) + 8000


def test_what_relu6_clips_is_known_from_the_file(images, tmp_path):
    model = quantized(relu6_around_depthwise, images)
    for layer in quantizer_layers(model):
        layer.set_scale(layer.scale.numpy() * 4)  # beyond the bound: it must still clip
    export_tflite(model, tmp_path / "m.tflite", samples=images[:2])
    data = (tmp_path / "m.tflite").read_bytes()
    sites = verification.roundings(flatbuffer.Graph(flatbuffer.parse(data)))
    for site, layer in zip(sites, quantizer_layers(model), strict=True):
        np.testing.assert_array_equal(site.upper, 6 / layer.scale.numpy())
    findings = file_report.examine_tflite(tmp_path / "m.tflite", [(images,)])
    plain = flatbuffer.parse(convert(model, "float32"))
    graph = flatbuffer.Graph(plain)
    sites = verification.roundings(graph)
    graph.add_outputs([tensor for s in sites for tensor in (s.inputs, s.codes)])
    run = Runner(flatbuffer.serialize(plain))
    probes = [run(image[None])[-2 * len(sites) :] for image in images]
    for number, layer in enumerate(findings.layers):
        values, codes = (
            np.stack([probe[2 * number + i] for probe in probes]).astype(np.float64)
            for i in range(2)
        )
        error = values - codes * layer.table.scale
        sqnr = 10 * np.log10(np.sum(values**2) / np.sum(error**2))
        assert layer.sqnr == pytest.approx(sqnr, rel=1e-6)


@pytest.mark.parametrize(
    "activation",
    ["hard_sigmoid", "hard_silu", "squareplus", "selu", "soft_shrink", "hard_tanh"],
)
def test_activations_of_several_ops_verify_with_scales_folded(
    activation, images, tmp_path
):
    def gated(x):
        gate = layers.GlobalAveragePooling2D(keepdims=True)(conv(x))
        gate = layers.Conv2D(6, 1, activation=activation)(gate)
        return conv(layers.Multiply()([x, gate]), 3, activation=None)

    model = quantized(gated, images)
    report = export_tflite(model, tmp_path / "m.tflite", samples=images[:2])
    assert report.quantizers == 2
    assert report.max_difference < 1e-4


def test_wrong_bounds_after_a_folded_scale_are_still_an_error(images, tmp_path):
    model = quantized(doubled, images)
    export_tflite(model, tmp_path / "m.tflite", samples=images[:2])
    data = (tmp_path / "m.tflite").read_bytes()
    (layer,) = quantizer_layers(model)
    upper = np.asarray(layer.code_range()[1])
    before, after = (a.astype("<f4").tobytes() for a in (upper, upper - 2))
    assert before in data
    with pytest.raises(verification.VerificationError, match="codes differ"):
        verification.check_codes(data.replace(before, after), model, images[:1])


def test_a_report_scales_what_is_folded_into_the_models_own_product(images, tmp_path):
    model = quantized(doubled, images)
    export_tflite(model, tmp_path / "m.tflite", samples=images[:2])
    (layer,) = file_report.examine_tflite(tmp_path / "m.tflite", [(images,)]).layers
    measured = dqa.storage_bits(model, images).layers[layer.table.name]
    assert layer.sqnr == pytest.approx(measured.sqnr, abs=0.05)
