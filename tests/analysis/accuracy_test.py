import numpy as np
import pytest

from dqa_keras.analysis.accuracy import Tally


def one_hot(classes, count):
    return np.eye(count, dtype=np.float32)[classes]


def test_top_1_over_several_batches():
    tally = Tally(3)
    tally.add(one_hot([0, 1, 2], 3), np.array([0, 1, 1]))
    tally.add(one_hot([2], 3), np.array([2]))
    assert tally.percent() == 75


def test_mean_iou_counts_neither_void_nor_classes_that_do_not_occur():
    # Class 0: 2 right, 1 predicted too often: 2 / 3. Class 1: 1 / 2. Class 2: nowhere.
    labels = np.array([[[0, 0], [1, 1]], [[3, 255], [3, 3]]])
    predicted = np.array([[[0, 0], [1, 0]], [[2, 2], [1, 0]]])
    tally = Tally(3)
    tally.add(one_hot(predicted, 3), labels)
    assert tally.percent() == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)


def test_an_image_of_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.2.*3 outputs. Received: 7"):
        Tally(3).add(one_hot([0], 3), np.array([7]))


def test_nothing_counted_is_no_accuracy():
    assert Tally(3).percent() == 0
