import keras
import numpy as np
import pytest

import dqa_keras as dqa

CONFIG = dqa.DQAConfig(bits=4, extra_bits=2)


class Gated(keras.layers.Layer):
    """Multiplies by what its call is given."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(4, activation="relu")

    def call(self, x, factor=1.0):
        return self.dense(x) * factor


class WithoutConfig(keras.layers.Layer):
    def __init__(self, activation, **options):
        super().__init__(**options)
        self.activation_layer = activation

    def call(self, x):
        return self.activation_layer(x)


class Outer(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = WithoutConfig(keras.layers.ReLU())

    def call(self, x):
        return self.inner(x)


def test_a_block_called_with_an_argument_computes_the_same():
    inputs = keras.Input((4,))
    x = Gated(name="gated")(inputs, factor=3.0)
    model = keras.Model(inputs, keras.layers.ReLU(name="end")(x))
    quantized = dqa.quantize_model(model, CONFIG)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(quantized(x), model(x))
    assert "gated" in [skip.name for skip in dqa.skipped(quantized)]


def test_a_block_whose_parts_cannot_be_copied_stays_whole():
    inputs = keras.Input((4,))
    x = Outer(name="outer")(inputs)
    model = keras.Model(inputs, keras.layers.ReLU(name="end")(x))
    quantized = dqa.quantize_model(model, CONFIG)
    assert dqa.skipped(quantized)[0].name.startswith("outer")


def test_a_layer_that_cannot_be_copied_is_named():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, WithoutConfig(keras.layers.ReLU(), name="odd")(inputs))
    with pytest.raises(
        ValueError,
        match=r"'odd' cannot be copied: WithoutConfig must override get_config",
    ):
        dqa.quantize_model(model, CONFIG)
