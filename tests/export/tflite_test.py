"""The exporter, against the real converter and the real interpreter."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import dqa_keras as dqa
from dqa_keras.export import (
    VerificationError,
    export_tflite,
    load_packed,
    read_metadata,
)
from dqa_keras.export.litert import flatbuffer, verification
from dqa_keras.export.litert.conversion import convert
from dqa_keras.export.litert.interpreter import Runner
from dqa_keras.export.packed import pack
from dqa_keras.layers import quantizer_layers

layers = keras.layers


def quantized(model, data, **fields):
    result = dqa.quantize_model(model, dqa.DQAConfig(**fields))
    dqa.calibrate(result, data, verbose=0)
    return result


def test_only_built_in_ops_and_every_quantizer_compared(
    quantized_cnn, pictures, tmp_path
):
    report = export_tflite(quantized_cnn, tmp_path / "m.tflite", samples=pictures[:2])
    assert report.quantizers == 2
    assert report.ops["ROUND"] == 2
    assert set(report.ops) <= flatbuffer.BUILTIN
    assert report.size == (tmp_path / "m.tflite").stat().st_size


def test_litert_agrees_with_keras(exported, quantized_cnn, pictures):
    run = Runner(exported.read_bytes())
    ours = np.concatenate([run(pictures[i : i + 1])[0] for i in range(len(pictures))])
    theirs = quantized_cnn.predict(pictures, verbose=0)
    # A flipped code moves the output by far more than float noise; on this shallow
    # model it must stay rare.
    close = np.isclose(ours, theirs, atol=1e-5).all(axis=1)
    assert close.mean() > 0.9


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_weights_can_be_stored_smaller(weights, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.Conv2D(64, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    x = np.random.default_rng(0).random((16, 8, 8, 16), np.float32)
    small = quantized(model, x)
    full = export_tflite(small, tmp_path / "full.tflite", samples=x[:2])
    less = export_tflite(small, tmp_path / "l.tflite", weights=weights, samples=x[:2])
    assert less.size < 0.75 * full.size
    assert less.quantizers == 1
    assert less.max_difference < 0.05 * less.output_range


@pytest.mark.parametrize("method", ["direct", "noisyquant", "dqa"])
@pytest.mark.parametrize("signed", [True, False])
def test_every_method_gives_the_same_codes(method, signed, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 3, activation="tanh" if signed else "relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype(np.float32)
    small = quantized(model, x, method=method, bits=3, important_fraction=0.4)
    assert bool(np.asarray(quantizer_layers(small)[0].signed)) == signed
    assert export_tflite(small, tmp_path / "m.tflite", samples=x[:4]).quantizers == 1


def test_inputs_keep_their_places(tmp_path):
    # Alphabetical order differs from the model's.
    first, second = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    hidden = layers.Dense(8, activation="relu")(layers.Subtract()([first, second]))
    model = keras.Model([first, second], [layers.Dense(2)(hidden), hidden])
    random = np.random.default_rng(0)
    x = [random.normal(size=(16, 4)).astype(np.float32) for _ in range(2)]
    small = quantized(model, x)
    report = export_tflite(small, tmp_path / "m.tflite", samples=[a[:4] for a in x])
    assert report.max_difference < 1e-5


def test_nested_shared_and_repeated_layers(tmp_path):
    inner_input = keras.Input((8, 8, 4))
    inner = keras.Model(
        inner_input,
        layers.Conv2D(4, 3, padding="same", activation="relu")(inner_input),
        name="inner",
    )
    inputs = keras.Input((8, 8, 4))
    conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="shared")
    x = layers.Add()([inner(conv(inputs)), conv(inner(inputs))])
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    data = np.random.default_rng(0).random((16, 8, 8, 4), np.float32)
    small = quantized(model, data)
    report = export_tflite(small, tmp_path / "m.tflite", samples=data[:2])
    assert report.quantizers == 4


def test_two_activations_of_one_tensor_become_one(tmp_path):
    # As in NASNet. The converter computes what is alike once; both have their table.
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    twins = [layers.Conv2D(4, 3)(layers.ReLU()(x)) for _ in range(2)]
    model = keras.Model(inputs, layers.Add()(twins))
    data = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)
    small = quantized(model, data)
    report = export_tflite(small, tmp_path / "m.tflite", samples=data[:2])
    assert (report.ops["ROUND"], report.quantizers) == (1, 2)
    assert len(read_metadata(tmp_path / "m.tflite").tables) == 2


def test_a_quantizer_that_went_missing_is_refused(tmp_path):
    first, second = (layers.Conv2D(4, 3, activation="relu") for _ in range(2))
    model = keras.Sequential([keras.Input((8, 8, 3)), first, second, layers.Flatten()])
    x = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)
    small = quantized(model, x)
    export_tflite(small, tmp_path / "m.tflite", samples=x[:2])
    parsed = flatbuffer.parse((tmp_path / "m.tflite").read_bytes())
    for tensor in parsed.subgraphs[0].tensors:
        tensor.name = tensor.name.replace(b"quantizer.0.", b"other.")
    name = quantizer_layers(small)[0].name
    with pytest.raises(VerificationError, match=f"{name}.*not to be found"):
        verification.check_codes(flatbuffer.serialize(parsed), small, x[:1])


def test_quantizers_behind_linear_layers_are_found(tmp_path):
    # The converter folds the multiplication by 1 / scale into the convolution.
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 3),
            dqa.layers.DQA(bits=3),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype(np.float32)
    dqa.calibrate(model, x, verbose=0)
    assert export_tflite(model, tmp_path / "m.tflite", samples=x[:4]).quantizers == 1


def test_unknown_sizes_export(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    data = np.random.default_rng(0).random((8, 10, 14, 3), np.float32)
    small = quantized(model, data)
    report = export_tflite(small, tmp_path / "m.tflite", samples=data[:2])
    assert report.max_difference < 1e-5


def test_a_subclassed_model_says_how_to_export_it(tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, activation="relu")
            self.codes = dqa.layers.DQA(bits=3)

        def call(self, x):
            return self.codes(self.dense(x))

    net = Net()
    x = np.random.default_rng(0).random((8, 4), np.float32)
    dqa.calibrate(net, x, verbose=0)
    with pytest.raises(ValueError, match=r"wrap it in keras.Model\(inputs"):
        export_tflite(net, tmp_path / "m.tflite")
    inputs = keras.Input((4,))
    wrapped = keras.Model(inputs, net(inputs))
    assert export_tflite(wrapped, tmp_path / "m.tflite", samples=x).quantizers == 1


def test_wrong_codes_are_an_error(quantized_cnn, pictures):
    data = convert(quantized_cnn, "float32")  # where 1 / scale is still an op's
    layer = quantizer_layers(quantized_cnn)[0]
    factor = layer.table().inverse_scale
    assert_refused(data, factor, factor * 1.01, quantized_cnn, pictures)


def test_wrong_bounds_are_an_error(exported, quantized_cnn, pictures):
    layer = quantizer_layers(quantized_cnn)[0]
    _, highest = (np.asarray(bound) for bound in layer.code_range())
    assert len(set(highest)) == 2
    assert_refused(exported.read_bytes(), highest, highest - 2, quantized_cnn, pictures)


def assert_refused(data, values, others, model, pictures):
    """A file with other values of the first quantizer does not pass."""
    before, after = (a.astype("<f4").tobytes() for a in (values, others))
    assert before in data
    name = quantizer_layers(model)[0].name
    with pytest.raises(VerificationError, match=f"{name}.*codes differ"):
        verification.check_codes(data.replace(before, after), model, pictures[:1])


def test_a_missing_quantizer_is_an_error(exported, quantized_cnn, pictures):
    data = exported.read_bytes().replace(b"quantizer.1.", b"something.1.")
    with pytest.raises(VerificationError, match="not to be found"):
        verification.check_codes(data, quantized_cnn, pictures[:1])


def test_custom_ops_are_an_error(exported):
    model = flatbuffer.parse(exported.read_bytes())
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = 32, 32
    code.customCode = b"FlexErf"
    with pytest.raises(VerificationError, match=r"built-in.*FlexErf"):
        verification.check_ops(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mode": "fast"},
            "mode must be one of 'builtin', 'packed'. Received: mode='fast'",
        ),
        ({"weights": "int4"}, "weights must be one of .* Received: weights='int4'"),
    ],
)
def test_unknown_options(quantized_cnn, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_tflite(quantized_cnn, tmp_path / "m.tflite", **options)


def test_an_unwritable_path_leaves_nothing(quantized_cnn, tmp_path):
    with pytest.raises(ValueError, match=r"cannot write .*No such file"):
        export_tflite(quantized_cnn, tmp_path / "nowhere" / "m.tflite")
    with pytest.raises(ValueError, match="is a folder"):
        export_tflite(quantized_cnn, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_keeps_the_old_file(quantized_cnn, pictures, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="shape"):
        export_tflite(quantized_cnn, path, samples=pictures[:2, :, :, 0])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_buffers_are_aligned(exported):
    # XNNPACK reads weights in place with aligned loads.
    data = exported.read_bytes()
    model = flatbuffer.schema.Model.GetRootAs(data, 0)
    for index in range(model.BuffersLength()):
        values = model.Buffers(index).DataAsNumpy()
        if isinstance(values, np.ndarray) and values.size:
            start = values.__array_interface__["data"][0]
            origin = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
            assert (start - origin) % 16 == 0


def test_tensorflow_reads_the_file_too(exported, pictures):
    interpreter = tf.lite.Interpreter(str(exported))
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    interpreter.set_tensor(details["index"], pictures[:1])
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = Runner(exported.read_bytes())(pictures[:1])[0]
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_many_outputs_keep_their_order(tmp_path):
    # By name, output_10 would come before output_2.
    inputs = keras.Input((4,), name="in")
    hidden = layers.Dense(6, activation="relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(1 + i)(hidden) for i in range(12)])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    small = quantized(model, x)
    report = export_tflite(small, tmp_path / "m.tflite", samples=x[:2])
    assert report.max_difference < 1e-5
    outputs = Runner((tmp_path / "m.tflite").read_bytes())(x[:1])
    assert [output.shape[-1] for output in outputs] == list(range(1, 13))


def test_files_have_a_signature_with_the_models_names(exported):
    interpreter = tf.lite.Interpreter(str(exported))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["picture"], "outputs": ["output_0"]}
    }


def _two_heads():
    inputs = {name: keras.Input((4,), name=name) for name in ("wide", "deep")}
    hidden = layers.Dense(6, activation="relu")(layers.Add()(list(inputs.values())))
    return inputs, layers.Dense(1, name="zscore")(hidden), layers.Dense(3)(hidden)


@pytest.mark.parametrize("mode", ["builtin", "packed"])
@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (lambda a, b: {"score": a, "class": b}, ["class", "score"]),
        (
            lambda a, b: [a, layers.Activation("linear", name="kind")(b)],
            ["zscore", "kind"],
        ),
        (lambda a, b: {"score": a, "boxes": [b, b]}, ["boxes_0", "boxes_1", "score"]),
        (lambda a, b: {"only": a}, ["only"]),
        (
            lambda a, b: list(keras.ops.split(b, 3, axis=-1)),
            ["", "_1", "_2"],
        ),
        (lambda a, b: [b], ["output_0"]),
    ],
)
def test_names_of_inputs_and_outputs_are_kept(structure, names, mode, tmp_path):
    inputs, score, kind = _two_heads()
    model = keras.Model(inputs, structure(score, kind))
    random = np.random.default_rng(0)
    x = {n: random.normal(size=(8, 4)).astype(np.float32) for n in inputs}
    small = quantized(model, x)
    export_tflite(small, tmp_path / "m.tflite", mode=mode, samples=x)
    delegates = [pack.delegate()] if mode == "packed" else None
    interpreter = Interpreter(
        str(tmp_path / "m.tflite"), experimental_delegates=delegates
    )
    run = interpreter.get_signature_runner("serving_default")
    outputs = run(**{name: values[:1] for name, values in x.items()})
    if names[0] == "":  # Keras numbers `split`
        names = [small.outputs[0]._keras_history.operation.name + n for n in names]
    assert set(outputs) == set(names)
    wanted = keras.tree.flatten(small({n: a[:1] for n, a in x.items()}))
    for name, expected in zip(names, wanted, strict=True):
        output = outputs[name]
        np.testing.assert_allclose(
            output, expected, atol=0.1 if mode == "packed" else 1e-5
        )


def test_a_model_that_no_saved_model_can_hold(tmp_path):
    # TensorFlow cannot save the frozen graph of this one; the converter then falls
    # back to a way that names nothing.
    model = keras.applications.EfficientNetB0(
        weights=None, input_shape=(32, 32, 3), include_top=False
    )
    part = keras.Model(model.input, model.get_layer("block1a_activation").output)
    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32) * 255
    small = quantized(part, x)
    report = export_tflite(small, tmp_path / "m.tflite", samples=x[:1])
    assert report.quantizers == 1


@pytest.fixture(scope="module")
def any_size():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, 2, padding="same", activation="relu")(inputs)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    model = dqa.quantize_model(
        keras.Model(inputs, keras.layers.Conv2D(1, 1)(x)), dqa.DQAConfig(bits=4)
    )
    images = np.random.default_rng(0).random((4, 12, 16, 3), np.float32)
    dqa.calibrate(model, images, verbose=0)
    return model, images


def test_a_packed_file_has_one_size(any_size, tmp_path):
    model, images = any_size
    with pytest.raises(
        ValueError,
        match=r"fixed size.*'image' of shape \(None, None, 3\).*input_shape=",
    ):
        export_tflite(model, tmp_path / "m", mode="packed", samples=images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["builtin", "packed"])
@pytest.mark.parametrize("sampled", [True, False])
def test_a_size_is_fixed_at_export(any_size, tmp_path, mode, sampled):
    model, images = any_size
    report = export_tflite(
        model, tmp_path / "m", mode=mode, samples=images if sampled else None,
        input_shape=(12, 16, 3),
    )  # fmt: skip
    assert report.max_difference < 0.2 * report.output_range
    interpreter = load_packed(tmp_path / "m")
    (detail,) = interpreter.get_input_details()
    assert list(detail["shape_signature"]) == [1, 12, 16, 3]


@pytest.mark.parametrize(
    "shape", [(12, 16), (12, 16, 4), (12, 0, 3), [12, 16, 3], "12", (1, 12, 16, 3)]
)
def test_an_input_shape_must_fit(any_size, tmp_path, shape):
    with pytest.raises(ValueError, match=r"input_shape must be .*Received: "):
        export_tflite(any_size[0], tmp_path / "m", input_shape=shape)


def test_samples_have_the_size_of_the_file(any_size, tmp_path):
    model, images = any_size
    with pytest.raises(ValueError, match=r"samples must have the size.*\(12, 16, 3\)"):
        export_tflite(model, tmp_path / "m", samples=images, input_shape=(12, 20, 3))
