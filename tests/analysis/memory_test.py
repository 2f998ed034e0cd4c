"""The timeline of live activations, against sums by hand."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.analysis import memory


def skip_model(size=8):
    """input 3 channels -> wide 4 -> (pool, up) -> join with the skip -> head."""
    layers = keras.layers
    inputs = keras.Input((size, size, 3))
    x = skip = layers.ReLU(name="relu")(
        layers.BatchNormalization(name="norm")(
            layers.Conv2D(4, 3, padding="same", name="wide")(inputs)
        )
    )
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.UpSampling2D(name="up")(x)
    x = layers.Concatenate(name="join")([x, skip])
    return keras.Model(inputs, layers.Conv2D(1, 1, name="head")(x))


def test_what_is_alive_is_counted_at_each_step():
    live = memory.timeline(skip_model())
    assert live.steps == ("wide", "pool", "up", "join", "head")
    plane = 8 * 8
    alive = [
        (3 + 4) * plane,  # the image and what is made of it, in one place
        (4 + 1) * plane,  # the skip stays
        (4 + 1 + 4) * plane,
        (4 + 4 + 8) * plane,
        (8 + 1) * plane,
    ]
    assert live.bytes["int8"].tolist() == alive
    assert live.bytes["float32"].tolist() == [4 * values for values in alive]
    assert live.bytes["stored"].tolist() == alive  # nothing is quantized
    assert live.peak("int8") == (3, 16 * plane)


def test_stored_bits_count_where_codes_are_only_moved():
    model = dqa.quantize_model(skip_model(), dqa.DQAConfig(bits=3, method="direct"))
    x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    dqa.calibrate(model, x, verbose=0)
    live = memory.timeline(model, dqa.storage_bits(model, x))
    plane = 8 * 8
    # Three bits for the codes; a byte for the image and for the output.
    stored = [
        3 + 4 * 3 / 8,
        (4 + 1) * 3 / 8,
        (4 + 1 + 4) * 3 / 8,
        (4 + 4 + 8) * 3 / 8,
        8 * 3 / 8 + 1,
    ]
    assert live.bytes["stored"].tolist() == [plane * values for values in stored]


def test_nested_models_are_looked_into():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1, name="inner")], name="part"
    )
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, keras.layers.Conv2D(1, 1, name="outer")(inner(inputs)))
    assert memory.timeline(outer).steps == ("inner", "outer")


def test_open_sizes_must_be_given():
    model = skip_model(size=None)
    with pytest.raises(ValueError, match="give input_shapes"):
        memory.timeline(model)
    fixed = memory.timeline(model, input_shapes=[(8, 8, 3)])
    np.testing.assert_array_equal(
        fixed.bytes["int8"], memory.timeline(skip_model()).bytes["int8"]
    )


def test_a_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="out of sight"):
        memory.timeline(Subclassed())


def test_a_model_that_only_works_in_place_has_one_step():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU(name="relu")])
    live = memory.timeline(model)
    assert (live.steps, live.bytes["int8"].tolist()) == (("relu",), [4.0])
