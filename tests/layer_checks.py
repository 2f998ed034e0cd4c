"""What must hold for every quantizing layer, like Keras' `run_layer_test`."""

import json

import keras
import numpy as np

from dqa_keras.layers import QuantizationParameters


def calibration(layer, channels, *, signed=True, seed=0):
    """A made-up calibration with all scales different and every other channel on."""
    random = np.random.default_rng(seed)
    mask = np.arange(channels) % 2 == 0
    return QuantizationParameters(
        bits=layer.bits,
        extra_bits=layer.extra_bits,
        scale=random.uniform(0.05, 0.3, channels).astype(np.float32),
        mask=mask & (layer.extra_bits > 0),
        signed=signed,
        residual_counts=random.integers(0, 50, 2**layer.extra_bits),
        base_counts=random.integers(0, 50, 2**layer.bits),
        importance=random.uniform(size=channels),
        sqnr=12.5,
    )


def calibrated(layer, channels, **options):
    """The layer, built and calibrated by hand."""
    if not layer.built:
        layer.build((None, channels))
    layer.assign(calibration(layer, channels, **options))
    return layer


def assert_same_state(layer, other):
    """Every weight of two layers is equal to the bit."""
    for ours, theirs in zip(layer.weights, other.weights, strict=True):
        assert ours.path.split("/")[-1] == theirs.path.split("/")[-1]
        assert ours.dtype == theirs.dtype
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()


def run_layer_test(layer_class, arguments, input_shape, folder):
    """Checks build, call, config, dtype policies, cloning and saving of a layer."""
    x = np.random.default_rng(0).normal(size=input_shape).astype(np.float32)
    channels = input_shape[-1]

    layer = layer_class(**arguments, name="under_test")
    for name, value in arguments.items():
        assert getattr(layer.config, name) == value

    # Config: JSON there and back gives the same layer.
    fields = json.loads(json.dumps(layer.get_config()))
    twin = layer_class.from_config(fields)
    assert twin.get_config() == layer.get_config()
    assert twin.config == layer.config
    registered = keras.saving.serialize_keras_object(layer)
    revived = keras.saving.deserialize_keras_object(json.loads(json.dumps(registered)))
    assert type(revived) is layer_class

    # Build: state is there, of the right shape, and nothing of it is trained.
    layer.build((None, *input_shape[1:]))
    assert layer.built
    assert not layer.trainable_weights
    assert layer.scale.shape == layer.mask.shape == (channels,)
    assert not layer.is_calibrated

    # Call: shapes agree between eager and symbolic, before and after calibration.
    symbolic = layer(keras.Input(input_shape[1:]))
    assert symbolic.shape == (None, *input_shape[1:])
    assert symbolic.dtype == "float32"
    assert layer.compute_output_shape((None, *input_shape[1:])) == symbolic.shape
    assert np.asarray(layer(x)).tobytes() == x.tobytes()
    calibrated(layer, channels)
    y = np.asarray(layer(x))
    assert y.shape == x.shape
    assert np.any(y != x)

    # Policies: the output has the compute dtype, the arithmetic stays float32.
    for policy in ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16"):
        low = calibrated(layer_class(**arguments, dtype=policy), channels)
        compute_dtype = keras.DTypePolicy(policy).compute_dtype
        inputs = keras.ops.cast(x, compute_dtype)
        outputs = low(inputs)
        assert keras.backend.standardize_dtype(outputs.dtype) == compute_dtype
        expected = layer(keras.ops.cast(inputs, "float32"))
        expected = keras.ops.cast(expected, compute_dtype)
        np.testing.assert_array_equal(
            keras.ops.cast(outputs, "float32"), keras.ops.cast(expected, "float32")
        )
        assert low.scale.dtype == "float32"

    # Clone and file: the whole state, to the bit.
    model = keras.Sequential([keras.Input(input_shape[1:]), layer])
    clone = keras.models.clone_model(model)
    assert not clone.layers[0].is_calibrated
    clone.set_weights(model.get_weights())
    assert_same_state(clone.layers[0], layer)
    path = folder / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert_same_state(loaded.layers[0], layer)
    for other in (clone, loaded):
        assert np.asarray(other(x)).tobytes() == y.tobytes()
    weights_path = folder / "model.weights.h5"
    model.save_weights(weights_path)
    fresh = keras.models.clone_model(model)
    fresh.load_weights(weights_path)
    assert_same_state(fresh.layers[0], layer)
