"""Packed exports: what is packed, what stays outside, and what LiteRT computes."""

import importlib.util
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from packed_runs import run
from programs import check
from skips import one_by_one

import dqa_keras as dqa
from dqa_keras.export import (
    RuntimeMissingError,
    export_tflite,
    load_packed,
    read_metadata,
)
from dqa_keras.export.packed import pack
from dqa_keras.export.plan import runtime
from dqa_keras.export.plan.encoding import describe
from dqa_keras.export.plan.records import Kind, Type
from dqa_keras.export.plan.reference import Reference

layers = keras.layers


def network():
    """Every kind of operation that a region can hold."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((20, 24, 3), name="picture")
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = skip = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(24, 1, activation="relu6")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(y)
    x = layers.Add()([layers.Conv2D(8, 1)(y), x])  # a linear bottleneck
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.ReLU()(layers.Add()([layers.Conv2D(8, 3, padding="same")(y), x]))
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(12, 3, activation="relu")(layers.ZeroPadding2D(1)(x))
    x = layers.UpSampling2D()(x)
    x = layers.Concatenate()([x, skip])
    x = layers.Conv2D(10, 3, strides=2, activation="relu")(x)
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    x = layers.Conv2D(10, 3, dilation_rate=2, activation="softmax")(x)
    x = layers.AveragePooling2D(3, 2, padding="same")(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(12, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(5)(x))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def quantized(images):
    model = dqa.quantize_model(network(), dqa.DQAConfig(bits=5, extra_bits=2))
    dqa.calibrate(model, images, verbose=0)
    return model


@pytest.fixture(scope="module")
def path(quantized, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "m.tflite"
    export_tflite(quantized, path, mode="packed", samples=images)
    return path


@pytest.mark.parametrize("trusted", [True, False])
def test_a_network_on_packed_activations(trusted, quantized, images, tmp_path):
    path = tmp_path / "m.tflite"
    samples = images if trusted else None
    report = export_tflite(quantized, path, mode="packed", samples=samples)
    # A softmax stays outside, and cuts the network in two.
    assert report.ops == {"DQA": 2, "SOFTMAX": 1}
    (reason,) = report.packed.outside.values()
    assert reason.startswith("SOFTMAX is not among")
    assert sum(region.quantizers for region in report.packed.regions) == (
        report.quantizers
    )
    ours = run(load_packed(path), images)
    theirs = quantized.predict(images, verbose=0)
    assert np.corrcoef(ours.reshape(-1), theirs.reshape(-1))[0, 1] > 0.97


def test_litert_computes_what_the_reference_says(path, images):
    plans = pack.read_plans(path.read_bytes())
    first, constants = plans[0]
    outputs, _ = Reference(first, constants)([images[0]])
    second, constants = plans[1]
    between = np.asarray(keras.ops.softmax(outputs[0]))
    outputs, _ = Reference(second, constants)([between])
    ours = run(load_packed(path), images[:1])
    # LiteRT's softmax differs from Keras' in the last bit.
    np.testing.assert_allclose(ours[0], outputs[0].reshape(-1), atol=0.05)


def test_a_whole_model_equals_the_reference(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = skip = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, skip]))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    data = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig())
    dqa.calibrate(model, data, verbose=0)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, mode="packed", samples=data, strict=True)
    assert report.packed.outside == {}
    ((plan, constants),) = pack.read_plans(path.read_bytes())
    outputs, _ = Reference(plan, constants)([data[0]])
    np.testing.assert_array_equal(run(load_packed(path), data[:1])[0], outputs[0])
    assert report.max_difference < 0.1 * report.output_range


def exported(model, path, bits=7):
    """A small model with random data as a packed file: what it and Keras compute."""
    shape = model.input_shape[1:]
    data = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=bits, extra_bits=1))
    dqa.calibrate(quantized, data, verbose=0)
    report = export_tflite(quantized, path, mode="packed", samples=data)
    theirs = quantized.predict(data[:1], verbose=0)[0]
    return report, data, run(load_packed(path), data[:1])[0], theirs


def test_transposed_convolutions(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 5, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", use_bias=False)(x)
    x = skip = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2DTranspose(4, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, skip]))
    x = layers.Conv2DTranspose(2, (5, 3), strides=(2, 3))(x)
    model = keras.Model(inputs, x)
    path = tmp_path / "m.tflite"
    report, data, ours, theirs = exported(model, path)
    assert report.ops == {"DQA": 1}
    assert report.packed.outside == {}
    ((plan, constants),) = pack.read_plans(path.read_bytes())
    outputs, _ = Reference(plan, constants)([data[0]])
    np.testing.assert_array_equal(ours, outputs[0])
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


def test_zeros_around_pools_and_sums(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    signed = layers.ZeroPadding2D(2)(layers.Conv2D(8, 1)(x))
    x = layers.AveragePooling2D(3, 1)(layers.ZeroPadding2D(((2, 4), (3, 3)))(x))
    x = layers.Add()([x, layers.MaxPooling2D(1)(signed)])
    model = keras.Model(inputs, layers.ReLU()(x))
    report, _, ours, theirs = exported(model, tmp_path / "m.tflite")
    assert report.ops == {"DQA": 1}
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


def linear_network():
    """Signed codes in front of every kind of operation that reads them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((13, 11, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(10, 1, name="first")(x)
    y = layers.Conv2D(12, 3, padding="same", activation="relu6")(x)
    y = layers.BatchNormalization()(layers.Conv2D(10, 1)(y))
    x = layers.Add(name="sum")([x, y])
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Add(name="again")([layers.Conv2D(10, 1)(y), x])
    x = layers.Conv2D(10, 5, 2, activation="relu")(layers.ZeroPadding2D(2)(x))
    x = layers.Conv2D(9, 1, name="pooled")(x)
    x = layers.Concatenate()([
        layers.MaxPooling2D(3, 1, padding="same")(x),
        layers.AveragePooling2D(3, 1, padding="same")(x),
        layers.ZeroPadding2D(1)(layers.MaxPooling2D(3, 1)(x)),
    ])  # fmt: skip
    x = layers.UpSampling2D()(layers.Conv2D(8, 3, padding="same", name="up")(x))
    return keras.Model(inputs, layers.Conv2D(3, 3, padding="same")(x))


def test_linear_values_with_quantizers_are_stored_in_their_bits(tmp_path, monkeypatch):
    # Planning would keep so small a network in line buffers.
    monkeypatch.setattr(pack, "schedule", lambda program, *_: one_by_one(program, {}))
    model = linear_network()
    images = np.random.default_rng(0).normal(size=(16, 13, 11, 3)).astype(np.float32)
    config = dqa.DQAConfig(bits=7, extra_bits=1, quantize_linear=True)
    quantized = dqa.quantize_model(model, config)
    dqa.calibrate(quantized, images, verbose=0)
    linear = {f"{name}_dqa" for name in ("first", "sum", "again", "pooled", "up")}
    path = tmp_path / "m.tflite"
    for samples in (images, None):
        report = export_tflite(
            quantized, path, mode="packed", samples=samples, strict=True
        )
        assert report.ops == {"DQA": 1}
        tables = read_metadata(path).tables
        assert {name for name, table in tables.items() if table.signed} == linear
        ((plan, constants),) = pack.read_plans(path.read_bytes())
        check(types.SimpleNamespace(inputs=[(13, 11, 3)]), plan=(plan, constants))
        assert (7, 1, True) in {(t.bits, t.extra_bits, t.signed) for t in plan.tables}
        ours, theirs = (
            run(load_packed(path), images),
            quantized.predict(images, verbose=0),
        )
        error = np.sqrt(np.mean((ours - theirs) ** 2))
        assert error < 0.05 * np.std(theirs)


def test_an_op_that_cannot_be_computed_with_integers_splits_a_region(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    x = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(8, 1)(x))
    x = layers.Conv2D(2, 1)(layers.Conv2D(4, 3, activation="relu")(x))
    report, _, ours, theirs = exported(keras.Model(inputs, x), tmp_path / "m.tflite")
    assert report.ops == {"DQA": 2, "RESIZE_BILINEAR": 1}
    assert list(report.packed.outside.values()) == ["it interpolates signed codes"]
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


def test_samples_decide_how_linear_values_are_kept(quantized, images, tmp_path):
    def kept(samples):
        path = tmp_path / "m.tflite"
        export_tflite(quantized, path, mode="packed", samples=samples)
        plan, _ = pack.read_plans(path.read_bytes())[0]
        return sum(
            b.type == Type.WIDE and b.kind == Kind.LINE_BUFFER and b.slot > 9
            for b in plan.buffers
        )

    assert kept(images) == 0
    assert kept(None) > 0


def test_metadata_and_signature_are_kept(path):
    assert len(read_metadata(path).tables) == 10
    assert load_packed(path).get_signature_list() == {
        "serving_default": {"inputs": ["picture"], "outputs": ["output_0"]}
    }


def test_plans_are_printed(path):
    text = describe(pack.read_plans(path.read_bytes())[0][0])
    assert re.search(r"stage 0: \d+ strips", text)
    for word in (
        "quantize_input",
        "conv 3x3",
        "depthwise 3x3",
        "nearest",
        "concat",
        "bilinear",
    ):
        assert word in text


def test_tensorflow_runs_it_too(path, images):
    delegate = tf.lite.experimental.load_delegate(runtime.library_path())
    interpreter = tf.lite.Interpreter(str(path), experimental_delegates=[delegate])
    np.testing.assert_array_equal(
        run(interpreter, images[:1]), run(load_packed(path), images[:1])
    )


def test_without_xnnpack_it_computes_the_same(path, images):
    from ai_edge_litert.interpreter import OpResolverType

    plain = load_packed(
        path,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    np.testing.assert_allclose(
        run(plain, images[:1]), run(load_packed(path), images[:1]), atol=0.05
    )


def test_threads_change_no_bit(path, images):
    np.testing.assert_array_equal(
        run(load_packed(path, num_threads=2), images[:2]),
        run(load_packed(path), images[:2]),
    )


@pytest.mark.parametrize(
    ("layer", "size", "reason"),
    [
        (layers.AveragePooling2D(2, strides=256), (258, 4), "stride of 256"),
        (layers.MaxPooling2D(2, strides=(2, 256)), (4, 258), "stride of 256"),
        (layers.Conv2D(2, 2, dilation_rate=256), (258, 258), "dilation of 256"),
        (layers.Conv2D(2, (256, 1)), (257, 2), "window of 256"),
        (layers.Conv2DTranspose(2, 2, strides=(1, 256)), (2, 2), "stride of 256"),
        (layers.GlobalAveragePooling2D(), (300, 2), None),
    ],
)
def test_what_a_plan_has_no_room_for_stays_outside(layer, size, reason, tmp_path):
    inputs = keras.Input((*size, 2))
    x = layer(layers.Conv2D(2, 1, activation="relu")(inputs))
    if len(x.shape) == 4:
        x = layers.Conv2D(2, 1, activation="relu")(x)
    model = keras.Model(inputs, x)
    data = np.random.default_rng(0).normal(size=(2, *size, 2)).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig())
    dqa.calibrate(model, data, verbose=0)
    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, mode="packed", samples=data)
    limits = [text for text in report.packed.outside.values() if "a plan" in text]
    if reason is None:
        assert limits == []
    else:
        assert any(text.startswith(f"a {reason}; a plan holds") for text in limits)
    run(load_packed(path), data[:1])


def test_strict_names_what_stays_outside(quantized, images, tmp_path):
    with pytest.raises(ValueError, match=r"strict: every op .* Received: .*SOFTMAX"):
        export_tflite(
            quantized, tmp_path / "m.tflite", mode="packed", samples=images, strict=True
        )
    assert not list(tmp_path.iterdir())


def test_images_as_bytes(quantized, path, images, tmp_path):
    bytes_path = tmp_path / "m.tflite"
    export_tflite(quantized, bytes_path, mode="packed", samples=images, inputs="uint8")
    interpreter = load_packed(bytes_path)
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    np.testing.assert_array_equal(
        run(interpreter, images.astype(np.uint8)), run(load_packed(path), images)
    )


def test_results_as_bytes(quantized, path, images, tmp_path):
    bytes_path = tmp_path / "m.tflite"
    report = export_tflite(
        quantized, bytes_path, mode="packed", samples=images, outputs="uint8"
    )
    interpreter = load_packed(bytes_path)
    (detail,) = interpreter.get_output_details()
    assert detail["dtype"] == np.uint8
    scale, zero = detail["quantization"]
    exact = run(load_packed(path), images)
    codes = run(interpreter, images)
    # Half a step, and the last bit of the sum.
    nearest = np.clip(exact / scale + zero, 0, 255)
    np.testing.assert_allclose(codes, nearest, atol=0.501)
    assert codes.min() < 10
    assert codes.max() > 245
    assert report.max_difference < 0.1 * report.output_range


def test_results_as_bytes_take_their_range_from_samples(quantized, tmp_path):
    with pytest.raises(ValueError, match=r"outputs='uint8' needs samples"):
        export_tflite(quantized, tmp_path / "m", mode="packed", outputs="uint8")


def test_results_of_ops_outside_are_no_bytes(quantized, images, tmp_path):
    model = keras.Model(quantized.inputs, keras.layers.Softmax()(quantized.outputs[0]))
    with pytest.raises(ValueError, match=r"made by SOFTMAX .*outputs='float32'"):
        export_tflite(
            model, tmp_path / "m", mode="packed", samples=images, outputs="uint8"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_bytes_need_a_packed_export(quantized, images, tmp_path, end):
    with pytest.raises(ValueError, match=f"{end}='uint8' needs mode='packed'"):
        export_tflite(quantized, tmp_path / "m", samples=images, **{end: "uint8"})


def test_weights_are_not_to_choose(quantized, tmp_path):
    with pytest.raises(ValueError, match="leave weights at 'float32'"):
        export_tflite(quantized, tmp_path / "m", mode="packed", weights="int8")


def test_another_input_size_is_refused(path):
    interpreter = load_packed(path)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, (1, 30, 30, 3))
    with pytest.raises(RuntimeError, match=r"node 0: .*must hold 1440 float32 values"):
        interpreter.allocate_tensors()


def test_a_damaged_file_is_refused(path, tmp_path):
    data = bytearray(path.read_bytes())
    data[data.index(b"DQAG") + 60] ^= 1
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(data)
    with pytest.raises(RuntimeError, match=r"node . *: the plan is damaged"):
        load_packed(broken).allocate_tensors()


def test_a_missing_runtime_says_how_to_get_it(path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeMissingError, match=r"apt-get install g\+\+"):
        load_packed(path)


def test_an_arena_that_is_too_small_says_what_it_takes(
    quantized_cnn, pictures, tmp_path
):
    def arena_of(**options):
        report = export_tflite(
            quantized_cnn, tmp_path / "m", mode="packed", samples=pictures, **options
        )
        return sum(region.arena for region in report.packed.regions)

    with pytest.raises(
        ValueError, match=r"at least \d+ for this model \(layer \S+.*=0.25"
    ) as refusal:
        arena_of(arena_kib=0.25)
    least = int(re.search(r"at least (\d+)", str(refusal.value)).group(1))
    assert arena_of(arena_kib=least) <= 1024 * least
    with pytest.raises(ValueError, match=f"at least {least} "):
        arena_of(arena_kib=least - 1)
