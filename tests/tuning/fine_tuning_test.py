import keras
import numpy as np
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras import quantizers
from dqa_keras.layers import quantizer_layers


@pytest.fixture(scope="module")
def digits():
    """Images whose class is where they are bright, and a network that tells."""
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 256)
    x = random.random((256, 8, 8, 1)).astype(np.float32)
    for image, label in zip(x, y, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] += 0.7
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )
    _compiled(model, 0.01)
    model.fit(x, y, epochs=12, batch_size=32, verbose=0)
    return model, x, y


def _compiled(model, rate):
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def quantized(digits, **options):
    model, x, _ = digits
    quantized = dqa.quantize_model(model, dqa.DQAConfig(**options))
    dqa.calibrate(quantized, x, verbose=0)
    return quantized


def test_gradients_of_the_scale_are_those_of_lsq():
    x = np.float32([[-1.0, 0.3], [0.26, 0.9], [0.74, 9.0]])
    scale = np.float32([0.5, 0.25])
    q_min, q_max = np.float32([0, 0]), np.float32([3, 15])
    variable = tf.Variable(scale)
    with tf.GradientTape(persistent=True) as tape:
        y = quantizers.store_learning(tf.constant(x), variable, q_min, q_max)
        total = tf.reduce_sum(y)
    v = x / scale
    inside = (v >= q_min) & (v <= q_max)
    expected = np.where(inside, np.rint(v) - v, np.clip(v, q_min, q_max))
    expected = expected.sum(0) / np.sqrt(1 * q_max)
    np.testing.assert_allclose(tape.gradient(total, variable), expected, rtol=1e-5)
    np.testing.assert_allclose(y, np.clip(np.rint(v), q_min, q_max) * scale, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"bits": 2, "extra_bits": 1}, {"budget_bits": 2.0, "entropy": "all"}],
    ids=str,
)
def test_scales_and_weights_learn_and_the_state_is_settled(digits, options):
    model = quantized(digits, **options)
    _, x, y = digits
    layers = quantizer_layers(model)
    scales = [layer.scale.numpy() for layer in layers]
    masks = [layer.mask.numpy() for layer in layers]
    tuning = dqa.FineTuning(model, x)
    _compiled(model, 1e-3)
    before = model.evaluate(x, y, verbose=0)[0]
    history = model.fit(
        x, y, epochs=3, validation_data=(x, y), callbacks=[tuning], verbose=0
    )
    assert history.history["val_loss"][-1] < before
    # The last validation is what the model does afterwards.
    after = model.evaluate(x, y, verbose=0)[0]
    assert after == pytest.approx(history.history["val_loss"][-1], rel=1e-5)
    for layer, scale, mask in zip(layers, scales, masks, strict=True):
        assert np.any(layer.scale.numpy() != scale)
        np.testing.assert_array_equal(
            layer.inverse_scale.numpy(), np.float32(1) / layer.scale.numpy()
        )
        np.testing.assert_array_equal(layer.mask.numpy(), mask)
        assert not layer.trainable_weights
    measured = dqa.storage_bits(model, x).total
    for layer in layers:  # codes fit what is stored now
        counts = layer.base_counts.numpy()[: 2**layer.bits]
        assert counts.sum() > counts.size
    assert 1 < measured < 4


def test_important_channels_are_chosen_anew_if_asked(digits):
    model = quantized(digits, bits=2, extra_bits=2, important_fraction=0.5)
    _, x, y = digits
    layers = quantizer_layers(model)
    for layer in layers:  # the worst choice there is
        mask = ~layer.mask.numpy()
        layer.set_scale(np.where(mask, layer.scale / 4, layer.scale * 4))
        layer.mask.assign(mask)
    wrong = [layer.mask.numpy() for layer in layers]
    tuning = dqa.FineTuning(model, x, rerank=True)
    _compiled(model, 1e-4)
    model.fit(x, y, epochs=1, callbacks=[tuning], verbose=0)
    assert any(
        np.any(layer.mask.numpy() != mask)
        for layer, mask in zip(layers, wrong, strict=True)
    )
    assert all(layer.mask.numpy().sum() == 4 for layer in layers)


def test_only_calibrated_models_can_be_tuned(digits):
    model, x, y = digits
    with pytest.raises(ValueError, match="no quantizing layer"):
        dqa.FineTuning(model, x)
    fresh = dqa.quantize_model(model, dqa.DQAConfig())
    with pytest.raises(ValueError, match="is not calibrated"):
        dqa.FineTuning(fresh, x)
    assert not any(layer.trainable_weights for layer in quantizer_layers(fresh))
    tuned = quantized(digits, bits=4)
    other = quantized(digits, bits=4)
    tuning = dqa.FineTuning(other, x)
    _compiled(tuned, 1e-4)
    with pytest.raises(ValueError, match="make a new one"):
        tuned.fit(x, y, epochs=1, callbacks=[tuning], verbose=0)
