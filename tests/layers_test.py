import os
import subprocess
import sys

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from layer_checks import (
    assert_same_state,
    calibrated,
    calibration,
    run_layer_test,
)

import dqa_keras as dqa
from dqa_keras.codec import huffman
from dqa_keras.layers import make_quantizer, quantizer_layers

LAYERS = [dqa.layers.DQA, dqa.layers.Direct, dqa.layers.NoisyQuant]


@pytest.fixture
def x():
    return np.random.default_rng(5).normal(size=(3, 4, 5, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("layer_class", "arguments", "shape"),
    [
        (
            dqa.layers.DQA,
            {"bits": 3, "extra_bits": 2, "important_fraction": 0.5, "seed": 3},
            (2, 5, 4, 3),
        ),
        (dqa.layers.Direct, {"bits": 5, "signed": True, "clipping": "max"}, (2, 3)),
        (
            dqa.layers.NoisyQuant,
            {"bits": 4, "granularity": "tensor", "percentile": 99.0, "seed": 9},
            (2, 7, 3),
        ),
    ],
)
def test_layer(layer_class, arguments, shape, tmp_path):
    run_layer_test(layer_class, arguments, shape, tmp_path)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_before_calibration_the_input_passes_unchanged(layer_class, x):
    layer = layer_class()
    assert np.asarray(layer(x)).tobytes() == x.tobytes()
    assert np.asarray(layer(x, training=True)).tobytes() == x.tobytes()
    assert not layer.is_calibrated


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_dqa_equals_the_formula_to_the_bit(signed, training, x):
    layer = calibrated(dqa.layers.DQA(bits=3, extra_bits=2), 6, signed=signed)
    scale, mask = layer.scale.numpy(), layer.mask.numpy()
    q = oracle.codes(x, scale, mask, 3, 2, signed)
    expected = oracle.values(q, scale)
    np.testing.assert_array_equal(layer(x, training=training), expected)
    np.testing.assert_array_equal(layer.quantized(x), expected)
    np.testing.assert_array_equal(layer.codes(x), q)


def test_direct_is_dqa_without_important_channels(x):
    direct = calibrated(dqa.layers.Direct(bits=4), 6)
    none = calibrated(dqa.layers.DQA(bits=4, extra_bits=0), 6)
    scale = direct.scale.numpy()
    assert none.scale.numpy().tolist() == scale.tolist()
    expected = oracle.quantized(x, scale, [False] * 6, 4, 0, True)
    np.testing.assert_array_equal(direct(x), expected)
    np.testing.assert_array_equal(none(x), expected)


def test_noisyquant_adds_its_noise_before_and_subtracts_it_after(x):
    layer = calibrated(dqa.layers.NoisyQuant(bits=4, seed=2), 6)
    scale, noise = layer.scale.numpy(), layer.noise.numpy()
    q = oracle.codes(x + noise, scale, [False] * 6, 4, 0, True)
    expected = oracle.values(q, scale) - noise
    np.testing.assert_array_equal(layer(x), expected)
    np.testing.assert_array_equal(layer.codes(x), q)


def test_the_noise_is_fixed_seeded_and_within_half_a_step():
    def noise(seed):
        layer = calibrated(dqa.layers.NoisyQuant(bits=4, seed=seed), 50)
        return layer.noise.numpy(), layer.scale.numpy()

    first, scale = noise(1)
    np.testing.assert_array_equal(first, noise(1)[0])
    assert np.any(first != noise(2)[0])
    assert np.all(np.abs(first) <= scale / 2)
    assert np.ptp(first / scale) > 0.8


def test_noise_does_not_change_from_call_to_call(x):
    layer = calibrated(dqa.layers.NoisyQuant(bits=3), 6)
    np.testing.assert_array_equal(layer(x), layer(x))
    np.testing.assert_array_equal(layer(x, training=True), layer(x))


@pytest.mark.parametrize("layer_class", LAYERS)
def test_compiled_with_xla_the_codes_are_the_same(layer_class, x):
    layer = calibrated(layer_class(bits=4), 6)
    compiled = tf.function(layer.codes, jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant(x)), layer.codes(x))


@pytest.mark.parametrize("layer_class", LAYERS)
def test_gradient_is_one_inside_the_range_and_zero_outside(layer_class):
    layer = calibrated(layer_class(bits=4, signed=True), 2)
    scale = layer.scale.numpy()
    x = tf.constant(np.float32([[1.2, -3.1], [1000, -1000]]) * scale)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    gradient = np.asarray(tape.gradient(y, x))
    np.testing.assert_allclose(gradient, [[1, 1], [0, 0]], rtol=1e-6)


def test_mask_passes_through():
    inputs = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(10, 4, mask_zero=True)(inputs)
    layer = calibrated(dqa.layers.DQA(), 4)
    quantized = layer(embedded)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(quantized))
    tokens = np.array([[1, 2, 0, 0, 0]])
    values = np.asarray(model.layers[1](tokens))
    # The mean over the two tokens that are not masked.
    expected = np.asarray(layer(values))[0, :2].mean(0)
    np.testing.assert_allclose(model(tokens)[0], expected, rtol=1e-5)


def test_unknown_spatial_sizes_take_any_image():
    layer = dqa.layers.DQA(bits=4, extra_bits=2)
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    assert model.output_shape == (None, None, None, 3)
    calibrated(layer, 3)
    assert layer.table().shape == (0, 0, 3)
    for size in (2, 5):
        x = np.random.default_rng(size).normal(size=(1, size, size + 1, 3))
        x = x.astype(np.float32)
        scale, mask = layer.scale.numpy(), layer.mask.numpy()
        expected = oracle.quantized(x, scale, mask, 4, 2, True)
        np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize("shape", [(None, 4, None), (None,)])
def test_an_unknown_number_of_channels_is_refused(shape):
    layer = dqa.layers.DQA(name="codes")
    with pytest.raises(ValueError, match=r"'codes' needs .*channels is known.*shape="):
        layer.build(shape)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_bad_arguments_are_refused_as_in_the_config(layer_class):
    with pytest.raises(ValueError, match=r"bits must be in 1\.\.8.*bits=0"):
        layer_class(bits=0)
    with pytest.raises(ValueError, match="clipping must be one of"):
        layer_class(clipping="none")


def test_an_argument_that_no_layer_knows_is_refused():
    with pytest.raises(ValueError, match="extra_bit"):
        dqa.layers.DQA(extra_bit=2)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_config_holds_keras_arguments_too(layer_class):
    layer = layer_class(name="q", dtype="mixed_float16", trainable=False)
    twin = layer_class.from_config(layer.get_config())
    assert (twin.name, twin.dtype_policy.name) == ("q", "mixed_float16")
    assert twin.trainable is False


@pytest.mark.parametrize("method", ["dqa", "direct", "noisyquant"])
def test_make_quantizer_gives_the_layer_that_the_config_describes(method):
    config = dqa.DQAConfig(
        bits=3, method=method, signed=True, clipping="percentile", seed=4
    )
    layer = make_quantizer(config, name="q", dtype="float16")
    assert type(layer).__name__.lower() == method
    assert (layer.name, layer.compute_dtype) == ("q", "float16")
    for field in ("bits", "signed", "clipping", "seed", "method"):
        assert getattr(layer.config, field) == getattr(config, field)


def test_table_holds_what_was_assigned():
    layer = dqa.layers.DQA(bits=3, extra_bits=2, name="q")
    layer.build((None, 4, 4, 5))
    parameters = calibration(layer, 5)
    layer.assign(parameters)
    table = layer.table()
    assert (table.name, table.bits, table.extra_bits) == ("q", 3, 2)
    assert table.signed is True
    assert table.shape == (4, 4, 5)
    assert table.mask.tolist() == parameters.mask.tolist()
    assert table.scale.tobytes() == parameters.scale.tobytes()
    assert table.inverse_scale.tobytes() == layer.inverse_scale.numpy().tobytes()
    for lengths, counts in (
        (table.residual_lengths, parameters.residual_counts),
        (table.base_lengths, parameters.base_counts),
    ):
        weights = np.maximum(counts, 1)
        cost, _ = oracle.huffman_cost(weights)
        assert int(weights @ lengths.astype(int)) == cost


def test_counts_too_large_for_32_bits_keep_their_proportions():
    layer = dqa.layers.DQA(bits=2, extra_bits=2)
    layer.build((None, 2))
    parameters = calibration(layer, 2)
    counts = np.array([2**40, 2**39, 2**38, 0])
    parameters = type(parameters)(**{**parameters.__dict__, "residual_counts": counts})
    layer.assign(parameters)
    kept = layer.residual_counts.numpy()
    assert kept.min() == 1
    np.testing.assert_allclose(kept[:3] / kept[0], [1, 0.5, 0.25], rtol=1e-4)
    assert layer.table().residual_lengths.tolist() == [1, 2, 3, 3]
    huffman.check_lengths(layer.table().residual_lengths)


def test_table_of_an_uncalibrated_layer_says_what_to_do():
    layer = dqa.layers.DQA(name="codes")
    layer.build((None, 3))
    with pytest.raises(ValueError, match=r"'codes' is not calibrated\. Call .*calibra"):
        layer.table()


def test_calibration_reaches_a_model_that_is_compiled_already(x):
    layer = dqa.layers.DQA(bits=2, extra_bits=2)
    model = keras.Sequential([keras.Input((4, 5, 6)), layer])
    assert model.predict(x, verbose=0).tobytes() == x.tobytes()
    calibrated(layer, 6)
    expected = oracle.quantized(x, layer.scale.numpy(), layer.mask.numpy(), 2, 2, True)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


def test_a_shared_layer_quantizes_every_call():
    first, second = keras.Input((3,)), keras.Input((3,))
    layer = calibrated(dqa.layers.DQA(), 3)
    model = keras.Model([first, second], [layer(first), layer(second)])
    assert quantizer_layers(model) == [layer]
    a, b = np.float32([[1, 2, 3]]), np.float32([[-1, 0.5, 9]])
    for x, y in zip((a, b), model([a, b]), strict=True):
        np.testing.assert_array_equal(y, layer(x))


def test_two_quantizers_of_one_name_are_refused():
    inner = keras.Sequential([keras.Input((3,)), dqa.layers.DQA(name="q")])
    model = keras.Sequential([keras.Input((3,)), dqa.layers.DQA(name="q"), inner])
    with pytest.raises(ValueError, match=r"unique.*'q'"):
        quantizer_layers(model)


def test_quantizer_layers_come_in_order_nested_ones_included():
    inner = keras.Sequential([keras.Input((3,)), dqa.layers.Direct(name="b")])
    model = keras.Sequential(
        [
            keras.Input((3,)),
            dqa.layers.DQA(name="a"),
            inner,
            keras.layers.Dense(2),
            dqa.layers.NoisyQuant(name="c"),
        ]
    )
    assert [layer.name for layer in quantizer_layers(model)] == ["a", "b", "c"]


def test_a_quantized_model_trains():
    random = np.random.default_rng(0)
    x = random.normal(size=(128, 6)).astype(np.float32)
    y = (x @ random.normal(size=(6, 1))).astype(np.float32)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            dqa.layers.DQA(bits=3, extra_bits=2, name="q"),
            keras.layers.Dense(1),
        ]
    )
    dqa.calibrate(model, x, verbose=0)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    before = model.get_layer("hidden").kernel.numpy()
    scale = model.get_layer("q").scale.numpy()
    losses = model.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert np.any(model.get_layer("hidden").kernel.numpy() != before)
    np.testing.assert_array_equal(model.get_layer("q").scale.numpy(), scale)


_LOAD_AND_RUN = """
import sys
import numpy as np
import keras
import dqa_keras
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], np.asarray(model(np.load(sys.argv[2]))))
"""


def test_a_fresh_process_loads_the_file_and_gives_the_same_bits(tmp_path, x):
    model = keras.Sequential([keras.Input((4, 5, 6))])
    for layer_class in LAYERS:
        layer = layer_class(bits=4, name=layer_class.__name__.lower())
        model.add(keras.layers.Conv2D(6, 3, padding="same", activation="relu"))
        model.add(calibrated(layer, 6, signed=False))
    names = ("model.keras", "x.npy", "y.npy")
    model_path, x_path, y_path = (str(tmp_path / name) for name in names)
    model.save(model_path)
    np.save(x_path, x)
    subprocess.run(
        [sys.executable, "-c", _LOAD_AND_RUN, model_path, x_path, y_path],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert np.load(y_path).tobytes() == np.asarray(model(x)).tobytes()


def test_clone_of_a_quantized_model_with_its_weights_is_the_same(x):
    model = keras.Sequential(
        [
            keras.Input((4, 5, 6)),
            keras.layers.Conv2D(4, 2, activation="relu"),
            calibrated(dqa.layers.DQA(bits=2), 4, signed=False),
        ]
    )
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same_state(clone.layers[1], model.layers[1])
    assert np.asarray(clone(x)).tobytes() == np.asarray(model(x)).tobytes()
