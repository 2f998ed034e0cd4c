"""TFLITE_METADATA, read back field by field; Task Library's reader: `make android`.

Field numbers are those of metadata_schema.fbs.
"""

import io
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from flatbuffers import number_types as types
from flatbuffers.table import Table

import dqa_keras as dqa
from dqa_keras.export import export_tflite, read_metadata
from dqa_keras.export.litert import flatbuffer, task_metadata

layers = keras.layers
LABELS = ["cat", "Ü", "7"]


class Record:
    """A table of a FlatBuffer, by numbers of fields."""

    def __init__(self, data, position):
        self._table = Table(data, position)

    def _place(self, field):
        offset = self._table.Offset(4 + 2 * field)
        return offset and offset + self._table.Pos

    def text(self, field):
        return self._table.String(self._place(field)).decode()

    def byte(self, field):
        return self._table.Get(types.Uint8Flags, self._place(field))

    def record(self, field):
        return Record(self._table.Bytes, self._table.Indirect(self._place(field)))

    def _vector(self, field):
        if not self._place(field):
            return range(0)
        offset = self._place(field) - self._table.Pos
        start = self._table.Vector(offset)
        return range(start, start + 4 * self._table.VectorLen(offset), 4)

    def records(self, field):
        indirect = self._table.Indirect
        return [Record(self._table.Bytes, indirect(at)) for at in self._vector(field)]

    def floats(self, field):
        return [self._table.Get(types.Float32Flags, at) for at in self._vector(field)]


def calibrated(channels, head):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, channels), name="image")
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    model = dqa.quantize_model(keras.Model(inputs, head(x)), dqa.DQAConfig(bits=4))
    images = np.random.default_rng(0).random((4, 8, 8, channels), np.float32)
    dqa.calibrate(model, images, verbose=0)
    return model, images


def pooled(x):
    return layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def export(path, channels=3, head=pooled, **options):
    model, images = calibrated(channels, head)
    arguments = {"labels": LABELS, "normalization": ([127.5], [64.0]), **options}
    export_tflite(model, path, samples=images, **arguments)
    return path.read_bytes()


def root(data):
    content = flatbuffer.metadata(data)[task_metadata.NAME]
    assert content[4:8] == b"M001"
    return Record(
        content, flatbuffers.encode.Get(types.UOffsetTFlags.packer_type, content, 0)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_classifier_is_described(channels, tmp_path):
    data = export(tmp_path / "m.tflite", channels)
    model = root(data)
    assert model.text(7) == "1.0.0"
    (graph,) = model.records(3)
    (image,) = graph.records(2)
    assert image.text(0) == "image"
    content = image.record(3)
    assert content.byte(0) == 2  # an image
    assert content.record(1).byte(0) == {3: 1, 1: 2}[channels]  # RGB, grayscale
    (unit,) = image.records(4)
    assert unit.byte(0) == 1  # normalization
    assert unit.record(1).floats(0) == [127.5]
    assert unit.record(1).floats(1) == [64.0]
    (scores,) = graph.records(3)
    assert scores.text(0) == "output_0"
    (file,) = scores.records(6)
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)  # of an axis


def test_labels_lie_uncompressed_behind_the_model(tmp_path):
    data = export(tmp_path / "m.tflite")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (entry,) = archive.infolist()
        assert entry.compress_type == zipfile.ZIP_STORED
        assert archive.read(entry).decode() == "cat\nÜ\n7\n"
    assert read_metadata(tmp_path / "m.tflite").config["labels"] == LABELS
    again = [task_metadata.with_labels(b"x", LABELS) for _ in range(2)]
    assert again[0] == again[1]


def test_labels_belong_to_the_output_with_as_many_channels(tmp_path):
    def heads(x):
        return {"where": layers.Conv2D(3, 1)(x), "size": layers.Dense(1)(x)}

    data = export(tmp_path / "m.tflite", head=heads, normalization=([1, 2, 3], [4] * 3))
    (graph,) = root(data).records(3)
    outputs = {output.text(0): output.records(6) for output in graph.records(3)}
    assert [file.text(0) for file in outputs["where"]] == ["labels.txt"]
    assert outputs["size"] == []
    (unit,) = graph.records(2)[0].records(4)
    assert unit.record(1).floats(0) == [1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [{"labels": None}, {"normalization": None}, {"mode": "packed"}, {"channels": 2}],
)
def test_where_it_does_not_serve_it_is_not_written(options, tmp_path):
    data = export(tmp_path / "m.tflite", **options)
    assert task_metadata.NAME not in flatbuffer.metadata(data)
    assert b"PK\x03\x04" not in data
