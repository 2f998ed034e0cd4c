"""Metadata of real exported files, whole and damaged."""

import json

import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import MetadataError, export_tflite, read_metadata
from dqa_keras.export.litert import flatbuffer
from dqa_keras.layers import quantizer_layers


def test_tables_and_config_come_back(exported, quantized_cnn):
    metadata = read_metadata(exported)
    layers = quantizer_layers(quantized_cnn)
    assert list(metadata.tables) == [layer.name for layer in layers]
    for layer in layers:
        assert metadata.tables[layer.name] == layer.table()
    config = metadata.config
    assert config["labels"] == ["cat", "dog", "owl"]
    assert config["input"] == {"mean": [0.5], "std": [0.25]}
    assert config["tool"] == f"dqa_keras {dqa.__version__}"
    assert dqa.DQAConfig.from_dict(config["layers"][0]["config"]) == layers[0].config
    assert {skip["name"] for skip in config["skipped"]} == {"head"}


def test_json_says_nothing_for_each_channel(exported):
    text = flatbuffer.metadata(exported.read_bytes())["DQA_CONFIG"].decode()
    assert "\n" not in text
    fields = {"name", "config", "shape", "signed"}
    layers = json.loads(text)["layers"]
    assert all(set(layer) - {"zero_point"} == fields for layer in layers)


def test_config_of_format_1_is_read(tmp_path, exported):
    path = tmp_path / "before.tflite"
    path.write_bytes(exported.read_bytes().replace(b'"format": 2', b'"format": 1'))
    assert read_metadata(path).tables == read_metadata(exported).tables


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MetadataError, match=r"cannot read .*nowhere\.tflite"):
        read_metadata(tmp_path / "nowhere.tflite")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"x" * 4096])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "foreign.tflite"
    path.write_bytes(content)
    with pytest.raises(MetadataError, match=r"foreign\.tflite: not a \.tflite"):
        read_metadata(path)


def test_a_tflite_of_others_is_refused(tmp_path, exported):
    model = flatbuffer.parse(exported.read_bytes())
    model.metadata = []
    path = tmp_path / "other.tflite"
    path.write_bytes(flatbuffer.serialize(model))
    with pytest.raises(MetadataError, match="not exported by dqa_keras"):
        read_metadata(path)


def test_damaged_metadata_is_refused(tmp_path, exported):
    data = bytearray(exported.read_bytes())
    data[data.index(b"DQAR") + 40] ^= 1
    path = tmp_path / "damaged.tflite"
    path.write_bytes(data)
    with pytest.raises(MetadataError, match="CRC-32"):
        read_metadata(path)


def test_truncated_files_give_one_kind_of_error(tmp_path, exported):
    data = exported.read_bytes()
    path = tmp_path / "short.tflite"
    for size in np.linspace(0, len(data) - 1, 200).astype(int):
        path.write_bytes(data[:size])
        try:
            read_metadata(path)
        except MetadataError:
            continue
        # What was cut off came behind the metadata: it must be whole then.
        assert data[:size].count(b"DQAR") == 1


def test_mutated_files_give_one_kind_of_error(tmp_path, exported):
    data = exported.read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "mutated.tflite"
    refused = 0
    for _ in range(500):
        mutated = bytearray(data)
        for position in random.integers(0, len(data), 20):
            mutated[position] = random.integers(256)
        path.write_bytes(mutated)
        try:
            read_metadata(path)
        except MetadataError:
            refused += 1
    assert refused > 0


def test_config_of_another_format_is_refused(tmp_path, exported, quantized_cnn):
    data = exported.read_bytes()
    path = tmp_path / "future.tflite"
    path.write_bytes(data.replace(b'"format": 2', b'"format": 9'))
    with pytest.raises(MetadataError, match="format 1 or 2"):
        read_metadata(path)


def test_uncalibrated_models_have_no_metadata(tmp_path, small_cnn):
    quantized = dqa.quantize_model(small_cnn, dqa.DQAConfig())
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match="is not calibrated"):
        export_tflite(quantized, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(
    "share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, "10 bytes", "1 byte"]
)
def test_a_file_that_was_cut_is_refused(archive, share, tmp_path, quantized_cnn):
    path = tmp_path / "whole.tflite"
    labels = dict(labels=["a", "b", "c"], normalization=([0.0], [1.0]))
    export_tflite(quantized_cnn, path, **(labels if archive else {}))
    data = path.read_bytes()
    assert (b"PK\x03\x04" in data) == archive
    read_metadata(path)
    left = (
        int(len(data) * share)
        if isinstance(share, float)
        else (len(data) - int(share.split()[0]))
    )
    path.write_bytes(data[:left])
    with pytest.raises(MetadataError, match=r"whole\.tflite: "):
        read_metadata(path)


def test_a_device_without_end_is_refused_unread():
    with pytest.raises(MetadataError, match=r"/dev/zero: not a \.tflite file"):
        read_metadata("/dev/zero")
