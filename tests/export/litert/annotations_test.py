"""Labels and normalization: what is taken is read back, the rest is refused."""

import json

import keras
import numpy as np
import pytest

from dqa_keras.export import export_tflite, read_metadata
from dqa_keras.export.litert.annotations import checked_labels, checked_normalization


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2],
        range(3),
        ("a", 1, np.int64(2)),
        np.array(["cat", "dog", "owl"]),
        np.array([7, 8, 9], np.uint8),
        np.array(["cat", 5, "é"], object),
        keras.ops.convert_to_tensor([1, 2, 3]).numpy(),
    ],
)
def test_labels_that_are_taken_are_read_back(labels, quantized_cnn, pictures, tmp_path):
    path = tmp_path / "m.tflite"
    export_tflite(quantized_cnn, path, samples=pictures[:1], labels=labels)
    assert read_metadata(path).config["labels"] == [str(label) for label in labels]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a", "b", "c"}, "must be a list of text or whole numbers"),
        ({"a": 1, "b": 2, "c": 3}, "must be a list"),
        ("abc", "must be a list.* Received: 'abc'"),
        (b"abc", "must be a list"),
        (3, "must be a list"),
        (iter("abc"), "must be a list"),
        ([None, "b", "c"], "must be a list.* Received: None among them"),
        ([1.5, 2, 3], "Received: 1.5 among them"),
        ([True, False, True], "Received: True among them"),
        ([["a"], ["b"], ["c"]], "among them"),
        (np.eye(3), "among them"),
        (np.array([np.nan, 1, 2]), "Received: nan among them"),
        (["a", "b"], "one label for each channel of the output: 3. Received: 2"),
        ([], "Received: 0 labels"),
        (["a"] * 4, "Received: 4 labels"),
        (["a\nb", "c", "d"], r"one line of text.* Received: 'a\\nb'"),
        (["a\r", "c", "d"], "one line of text"),
        (["a\u2028b", "c", "d"], "one line of text"),
        (["", "c", "d"], "one line of text"),
        ([" ", "c", "d"], "one line of text"),
        (["\ud800", "c", "d"], "one line of text"),
    ],
)
def test_labels_that_no_reader_takes_are_refused(
    labels, message, quantized_cnn, tmp_path
):
    with pytest.raises(ValueError, match=message) as caught:
        export_tflite(quantized_cnn, tmp_path / "m.tflite", labels=labels)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_labels_fit_one_of_several_outputs():
    x = keras.Input((4,))
    dense = keras.layers.Dense
    model = keras.Model(x, {"boxes": dense(4)(x), "classes": dense(2)(x)})
    assert checked_labels(model, ["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match=r"4 or 2\. Received: 3"):
        checked_labels(model, ["a", "b", "c"])


@pytest.mark.parametrize(
    "normalization",
    [([1.0], [2.0]), ([1, 2, 3], [4, 5, 6]), np.ones((2, 3)), ((0.5,), np.array([2]))],
)
def test_a_normalization_has_one_number_or_one_a_channel(normalization):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    mean, std = checked_normalization(model, normalization)
    assert mean.dtype == std.dtype == np.float32
    assert json.dumps(mean.tolist()) == json.dumps([float(v) for v in normalization[0]])


@pytest.mark.parametrize(
    "normalization",
    [
        ([1, 2], [1, 2]),
        ([1] * 4, [1] * 4),
        (0.5, 0.25),
        "ab",
        5,
        ([1],),
        ([1], [1], [1]),
        ([None], [1]),
        (["x"], [1]),
        ([[1, 2, 3]], [[1, 2, 3]]),
        ([1e39], [1]),
    ],
)
def test_a_normalization_of_other_channels_is_refused(normalization):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"each a list of 1 or 3 numbers.* Received: "):
        checked_normalization(model, normalization)
