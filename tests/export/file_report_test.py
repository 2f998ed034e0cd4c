"""What LiteRT shows of a file is what Keras shows of its model."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_explorer import node_data_builder
from model_explorer.builtin_tflite_flatbuffer_adapter import (
    BuiltinTfliteFlatbufferAdapter,
)

import dqa_keras as dqa
from dqa_keras.analysis import memory
from dqa_keras.export import MetadataError, export_tflite, model_explorer
from dqa_keras.export.file_report import examine_tflite, input_shape


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with an unsigned and a signed quantizer, its file, images and labels."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(4, 3, activation="tanh", name="second")(x)
    outputs = layers.Dense(3, name="head")(layers.Flatten(name="flat")(x))
    model = keras.Model(inputs, outputs, name="two")
    random = np.random.default_rng(0)
    images = random.normal(size=(24, 8, 8, 3)).astype(np.float32)
    labels = random.integers(0, 3, 24)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=3, extra_bits=2))
    dqa.calibrate(quantized, images, verbose=0)
    folder = tmp_path_factory.mktemp("exported")
    path = folder / "two.tflite"
    export_tflite(quantized, path, samples=images[:2])
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(10)
    return quantized, path, images, labels, data


@pytest.fixture(scope="module")
def findings(exported):
    return examine_tflite(exported[1], exported[-1])


def test_stored_bits_and_sqnr_agree_with_keras(exported, findings):
    quantized, _, images, _, _ = exported
    storage = dqa.storage_bits(quantized, images)
    assert [layer.table.name for layer in findings.layers] == list(storage.layers)
    for layer in findings.layers:
        measured = storage.layers[layer.table.name]
        assert layer.activations == measured.activations
        # A convolution's last bit may move a code.
        assert layer.stored_bits == pytest.approx(measured.bits, abs=0.01)
        assert layer.sqnr == pytest.approx(measured.sqnr, abs=0.05)
        assert sum(layer.histogram.shares[3]) == pytest.approx(1)


def test_accuracy_agrees_with_keras(exported, findings):
    quantized, _, images, labels, _ = exported
    predicted = np.argmax(quantized.predict(images, verbose=0), -1)
    right = 100 * float(np.mean(predicted == labels))
    assert findings.scores.images == 24
    assert findings.scores.this[1] == pytest.approx(right, abs=100 / 24 + 0.01)
    assert findings.scores.this[0] == pytest.approx(findings.stored_bits)


def test_the_timeline_has_the_peaks_of_the_keras_model(exported, findings):
    quantized, _, images, _, _ = exported
    wanted = memory.timeline(quantized, dqa.storage_bits(quantized, images))
    for form in ("float32", "int8"):
        assert findings.timeline.peak(form)[1] == wanted.peak(form)[1]
    assert findings.timeline.peak("stored")[1] == pytest.approx(
        wanted.peak("stored")[1], rel=0.01
    )


def test_what_needs_the_keras_model_is_said_to(findings):
    assert set(findings.absent) == {"scores", "errors", "channels", "choices"}
    assert all("needs the Keras model" in why for why in findings.absent.values())
    assert findings.output_sqnr is None
    assert [skip.name for skip in findings.skipped] == []


def test_a_packed_file_shows_its_accuracy_and_says_what_it_hides(exported, tmp_path):
    quantized, _, images, _, data = exported
    path = tmp_path / "packed.tflite"
    export_tflite(quantized, path, mode="packed", samples=images)
    packed = examine_tflite(path, data)
    assert packed.scores.this[0] is None
    assert 0 <= packed.scores.this[1] <= 100
    assert {"layers", "memory", "histograms"} <= set(packed.absent)
    with pytest.raises(ValueError, match="must be a built-in export"):
        model_explorer.write(path, packed, str(tmp_path / "overlay"))
    assert list(tmp_path.iterdir()) == [path]


def test_model_explorer_finds_every_node_of_an_overlay(exported, findings, tmp_path):
    path = exported[1]
    written = model_explorer.write(path, findings, str(tmp_path / "two"))
    assert [file.name for file in written] == [
        "two.stored_bits.json",
        "two.sqnr.json",
    ]
    converted = BuiltinTfliteFlatbufferAdapter().convert(str(path), {})
    (collection,) = converted["graphCollections"]
    (graph,) = collection.graphs
    tensors = {
        attribute["value"]
        for node in graph["nodes"]
        for output in node["outputsMetadata"]
        for attribute in output["attrs"]
        if attribute["key"] == "tensor_name"
    }
    for file, of in zip(written, ("stored_bits", "sqnr"), strict=True):
        data = json.loads(file.read_text())[graph["id"]]
        results = {
            name: node_data_builder.NodeDataResult(**result)
            for name, result in data.pop("results").items()
        }
        gradient = [node_data_builder.GradientItem(**i) for i in data.pop("gradient")]
        built = node_data_builder.GraphNodeData(results, gradient=gradient, **data)
        # What its own builder writes of these figures is what the file holds.
        model = node_data_builder.ModelNodeData({graph["id"]: built})
        assert _kept(json.loads(model.to_json_string())) == _kept(
            json.loads(file.read_text())
        )
        assert set(results) <= tensors
        values = {result.value for result in results.values()}
        wanted = {round(getattr(layer, of), 4) for layer in findings.layers}
        assert values == wanted


def _kept(tree):
    """Without the fields that the builder adds with their default values."""
    if not isinstance(tree, dict):
        return tree
    return {
        key: _kept(value) for key, value in tree.items() if value not in ([], False)
    }


def test_input_shapes_are_read_from_the_file(exported, tmp_path):
    assert input_shape(exported[1]) == (1, 8, 8, 3)
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(b"nothing of ours")
    with pytest.raises(MetadataError, match=r"not a \.tflite file"):
        input_shape(foreign)


@pytest.mark.parametrize("mode", ["builtin", "packed"])
@pytest.mark.parametrize("shape", [(12, 12, 3), (8, 4, 6), (8, 8, 1), (8, 8)])
def test_images_of_another_size_are_refused(mode, shape, exported, tmp_path):
    # LiteRT would resize the network and measure that.
    path = exported[1]
    if mode == "packed":
        path = tmp_path / "packed.tflite"
        export_tflite(exported[0], path, mode="packed", samples=exported[2])
    images = np.zeros((2, *shape), np.float32)
    with pytest.raises(ValueError, match=r"shape of the file's input, \(8, 8, 3\)"):
        examine_tflite(path, [(images, np.zeros(2))])


def test_an_open_size_takes_images_of_any(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=3))
    images = np.random.default_rng(0).random((4, 9, 7, 3), np.float32)
    dqa.calibrate(model, images, verbose=0)
    export_tflite(model, tmp_path / "m.tflite", samples=images[:1])
    findings = examine_tflite(tmp_path / "m.tflite", [(images,)])
    assert findings.layers[0].activations == 7 * 5 * 4
