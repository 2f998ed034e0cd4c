import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.graph import hooks


def test_observing_gives_the_report_of_each_call_and_passes_the_outputs_on():
    first, second = keras.Input((2,)), keras.Input((2,))
    shared = dqa.layers.DQA(name="shared")
    total = keras.layers.Add()([shared(first), shared(second)])
    model = keras.Model([first, second], dqa.layers.Direct(name="end")(total))
    observe = hooks.observing(model, lambda layer, x: ((x, 2 * x), x + 1))
    a, b = np.float32([[1, 2]]), np.float32([[3, 5]])
    seen = [
        (layer.name, x.tolist(), doubled.tolist())
        for layer, (x, doubled) in observe([a, b])
    ]
    assert seen == [
        ("shared", [[1, 2]], [[2, 4]]),
        ("shared", [[3, 5]], [[6, 10]]),
        ("end", [[6, 9]], [[12, 18]]),
    ]


def test_nothing_is_left_behind_when_the_model_fails():
    model = keras.Sequential([keras.Input((2,)), dqa.layers.DQA(name="q")])

    def fail(layer, x):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        hooks.observing(model, fail)(np.ones((1, 2), np.float32))
    x = np.float32([[0.3, 0.7]])
    np.testing.assert_array_equal(model(x), x)
