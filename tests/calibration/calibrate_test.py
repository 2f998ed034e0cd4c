import io
import sys

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras.layers import quantizer_layers

CONFIG = dqa.DQAConfig(bits=3, extra_bits=2, important_fraction=0.25)


def state(model):
    """All that calibration decides, to the bit."""
    return {
        layer.name: [weight.numpy().tobytes() for weight in layer.weights]
        for layer in quantizer_layers(model)
    }


def weights(model):
    return [weight.numpy().tobytes() for weight in model.weights]


def one_layer(channels, layer=None, **options):
    """A model that is a quantizer and nothing else, and the quantizer."""
    layer = layer or dqa.layers.DQA(**options, name="q")
    return keras.Sequential([keras.Input((channels,)), layer]), layer


@pytest.fixture(scope="module")
def network():
    """A small network whose quantizers see both signs and many channels."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="a")(inputs)
    x = keras.layers.Conv2D(8, 3, activation="tanh", name="b")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(40, 6, 6, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def calibrated(network, data):
    """What calibration on `data` decides; tests must not change it."""
    model = dqa.quantize_model(network, CONFIG)
    dqa.calibrate(model, data, verbose=0)
    return model


class Images(keras.utils.PyDataset):
    """Batches of seven images with labels."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return -(-len(self.x) // 7)

    def __getitem__(self, index):
        x = self.x[7 * index : 7 * index + 7]
        return x, np.zeros(len(x))


class Passes:
    """Batches that count how often they are read."""

    def __init__(self, x):
        self.x = x
        self.count = 0

    def __iter__(self):
        self.count += 1
        return iter([self.x[:20], self.x[20:]])


# ---- what data may be


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x.astype(np.float64),
        lambda x: tf.constant(x),
        lambda x: (x, np.zeros(len(x))),
        lambda x: x[::-1],
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(9),
        lambda x: tf.data.Dataset.from_tensor_slices((x, x)).batch(32),
        lambda x: (x[i : i + 13] for i in range(0, len(x), 13)),
        lambda x: ((x[i : i + 1], 0) for i in range(len(x))),
        Images,
    ],
    ids=[
        "array",
        "float64",
        "tensor",
        "x and y",
        "reversed",
        "tf.data",
        "tf.data with labels",
        "generator",
        "generator of single images",
        "PyDataset",
    ],
)
def test_any_form_order_and_batching_decides_the_same(form, network, data, calibrated):
    model = dqa.quantize_model(network, CONFIG)
    dqa.calibrate(model, form(data), verbose=0)
    assert state(model) == state(calibrated)


@pytest.mark.parametrize(
    "form", ["list", "dict", "tf.data", "generator", "tf.data list"]
)
def test_models_of_two_inputs(form):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model(
        [a, b], [dqa.layers.DQA(name="qa")(a), dqa.layers.DQA(name="qb")(b)]
    )
    random = np.random.default_rng(0)
    xa, xb = random.normal(size=(20, 3)), random.normal(size=(20, 2))
    xa, xb = xa.astype(np.float32), xb.astype(np.float32)
    named = {"a": xa, "b": xb}
    source = {
        "list": [xa, xb],
        "dict": named,
        "tf.data": tf.data.Dataset.from_tensor_slices(named).batch(8),
        "tf.data list": tf.data.Dataset.from_tensor_slices(((xa, xb), xa)).batch(8),
        "generator": ({"a": xa[i::2], "b": xb[i::2]} for i in range(2)),
    }[form]
    dqa.calibrate(model, source, verbose=0)
    for name, x in (("qa", xa), ("qb", xb)):
        alone, layer = one_layer(x.shape[1])
        dqa.calibrate(alone, x, verbose=0)
        np.testing.assert_array_equal(model.get_layer(name).scale, layer.scale)
        np.testing.assert_array_equal(model.get_layer(name).mask, layer.mask)


def test_images_of_different_sizes():
    layer = dqa.layers.DQA(clipping="max", signed=True, extra_bits=0, name="q")
    model = keras.Sequential([keras.Input((None, None, 2)), layer])
    random = np.random.default_rng(0)
    batches = [random.normal(size=(2, s, s + 1, 2)) for s in (3, 20, 5)]
    dqa.calibrate(model, iter(batches), verbose=0)
    largest = np.max([np.abs(b.astype(np.float32)).max((0, 1, 2)) for b in batches], 0)
    np.testing.assert_allclose(layer.scale, largest / 7, rtol=1e-6)


# ---- what is decided


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("signed", [False, True])
def test_max_scales_follow_from_the_largest_magnitude(signed, granularity):
    model, layer = one_layer(
        4, bits=3, extra_bits=2, clipping="max", granularity=granularity, signed=signed
    )
    x = np.random.default_rng(0).normal(size=(100, 4)) * [1, 2, 3, 9]
    x = x.astype(np.float32) if signed else np.abs(x).astype(np.float32)
    dqa.calibrate(model, x, verbose=0)
    largest = np.abs(x).max(0) if granularity == "channel" else np.abs(x).max()
    bits = 3 + 2 * layer.mask.numpy() - int(signed)
    expected = (largest.astype(np.float64) / (2**bits - 1)).astype(np.float32)
    np.testing.assert_array_equal(layer.scale, np.broadcast_to(expected, 4))
    np.testing.assert_array_equal(layer.inverse_scale, np.float32(1) / expected)


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_the_share_of_important_channels(fraction, count):
    model, layer = one_layer(8, important_fraction=fraction)
    dqa.calibrate(model, np.random.default_rng(0).random((50, 8)), verbose=0)
    assert layer.mask.numpy().sum() == count
    assert layer.is_calibrated


def test_no_channel_is_important_without_extra_bits():
    model, layer = one_layer(4, extra_bits=0, important_fraction=1.0)
    dqa.calibrate(model, np.random.default_rng(0).random((50, 4)), verbose=0)
    assert not layer.mask.numpy().any()


@pytest.mark.parametrize(
    ("option", "lowest", "signed"),
    [
        ("auto", 0.0, False),
        ("auto", -1e-6, True),
        (True, 0.0, True),
        (False, -1.0, False),
    ],
)
def test_signedness(option, lowest, signed):
    model, layer = one_layer(2, signed=option)
    x = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    x[7, 1] = lowest
    dqa.calibrate(model, x, verbose=0)
    assert bool(layer.signed.numpy()) is signed


@pytest.mark.parametrize("layer_class", [dqa.layers.DQA, dqa.layers.NoisyQuant])
def test_counts_and_sqnr_are_those_of_the_data(layer_class):
    layer = layer_class(bits=3, name="q")
    model, _ = one_layer(4, layer)
    x = np.random.default_rng(0).normal(size=(3000, 4)) * [1, 5, 2, 1]
    x = x.astype(np.float32)
    dqa.calibrate(model, x, verbose=0)
    mask, scale, m = layer.mask.numpy(), layer.scale.numpy(), layer.extra_bits
    noise = getattr(layer, "noise", np.zeros(4, np.float32))
    q = oracle.codes(x + noise, scale, mask, 3, m, True)
    base = np.where(mask, np.floor(q / 2**m), q).astype(int)
    expected = np.bincount((base % 8).ravel(), minlength=8)
    counts = layer.base_counts.numpy()
    # Codes of whole histogram bins: a few values on the border go to the neighbour.
    np.testing.assert_allclose(counts, expected, atol=0.02 * x.size)
    if m:
        symbols = oracle.residuals(q, mask, m)
        expected = np.bincount(symbols, minlength=2**m)
        atol = 0.04 * symbols.size
        np.testing.assert_allclose(layer.residual_counts, expected, atol=atol)
        assert abs(int(layer.residual_counts.numpy().sum()) - symbols.size) <= 2**m
    sqnr = oracle.sqnr(x, np.asarray(layer(x)))
    assert float(layer.sqnr) == pytest.approx(sqnr, abs=0.2)


def test_a_channel_of_zeros_is_harmless():
    model, layer = one_layer(3, bits=4)
    x = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    x[:, 1] = 0
    dqa.calibrate(model, x, verbose=0)
    y = np.asarray(model(x))
    assert np.all(np.isfinite(y))
    assert not y[:, 1].any()
    assert not layer.mask.numpy()[1]


def test_nothing_but_zeros_is_harmless():
    model, layer = one_layer(3)
    x = np.zeros((5, 3), np.float32)
    dqa.calibrate(model, x, verbose=0)
    assert layer.is_calibrated
    assert not np.asarray(model(x)).any()


def test_a_shared_layer_sees_every_call():
    a, b = keras.Input((2,)), keras.Input((2,))
    layer = dqa.layers.Direct(bits=4, clipping="max", signed=False)
    model = keras.Model([a, b], [layer(a), layer(b)])
    xa, xb = np.float32([[1, 15]]), np.float32([[30, 3]])
    dqa.calibrate(model, [xa, xb], verbose=0)
    assert layer.scale.numpy().tolist() == [2, 1]


def test_calibration_quantizes_what_the_unquantized_model_computes(network, data):
    # The second quantizer's range comes from float activations, not quantized ones.
    config = CONFIG.replace(bits=1, extra_bits=0, clipping="max", signed=True)
    model = dqa.quantize_model(network, config)
    dqa.calibrate(model, data, verbose=0)
    float_b = keras.Model(network.input, network.get_layer("b").output)
    largest = np.abs(float_b.predict(data, verbose=0)).max((0, 1, 2))
    np.testing.assert_allclose(model.get_layer("b_dqa").scale, largest, rtol=1e-5)


def test_recalibration_equals_fresh_calibration(network, data, calibrated):
    for method in ("dqa", "noisyquant"):
        config = CONFIG.replace(method=method)
        again = dqa.quantize_model(network, config)
        dqa.calibrate(again, 3 * data[:5] + 1, verbose=0)
        elsewhere = state(again)
        dqa.calibrate(again, data, verbose=0)
        fresh = dqa.quantize_model(network, config)
        dqa.calibrate(fresh, data, verbose=0)
        assert state(again) == state(fresh) != elsewhere


def test_float_weights_are_left_alone(network, calibrated):
    for layer in network.layers[1:]:
        twin = calibrated.get_layer(layer.name)
        assert weights(layer) == weights(twin)


# ---- greedy


@pytest.fixture(scope="module")
def greedy_states(network, data):
    """The outcome of greedy calibration for a few seeds, one of them twice."""

    def run(seed):
        config = CONFIG.replace(ranking="greedy", seed=seed)
        model = dqa.quantize_model(network, config)
        dqa.calibrate(model, data, verbose=0)
        return model

    return [run(0), run(0), run(1)]


def test_greedy_is_reproducible_and_seeded(greedy_states):
    first, again, other = greedy_states
    assert state(first) == state(again)
    # 32 of the 40 images are tried: another seed tries others.
    importance = [m.get_layer("b_dqa").importance.numpy() for m in (first, other)]
    assert np.any(importance[0] != importance[1])


def test_greedy_and_mse_share_everything_but_the_ranking(greedy_states, calibrated):
    for name in ("a_dqa", "b_dqa"):
        layers = [m.get_layer(name) for m in (greedy_states[0], calibrated)]
        masks = [layer.mask.numpy() for layer in layers]
        assert [mask.sum() for mask in masks] == [2, 2]
        same = masks[0] == masks[1]
        scales = [layer.scale.numpy()[same] for layer in layers]
        np.testing.assert_array_equal(*scales)


def test_greedy_scores_of_the_last_layer_equal_trials_by_hand(network, data):
    images = data[:20]  # fewer than are kept: all of them are tried
    config = CONFIG.replace(ranking="greedy", clipping="max", signed=True)
    model = dqa.quantize_model(network, config, filters=["b"])
    dqa.calibrate(model, images, verbose=0)
    before = keras.Model(network.input, network.get_layer("b").output)
    b = np.asarray(before(images))
    kernel, bias = (w.numpy().astype(np.float64) for w in network.layers[-1].weights)

    def head(x):
        return x.astype(np.float64).mean((1, 2)) @ kernel + bias

    largest = np.abs(b).max((0, 1, 2)).astype(np.float64)

    def error(mask):
        bits = np.where(mask, 5, 3)
        scale = (largest / (2 ** (bits - 1) - 1)).astype(np.float32)
        quantized = oracle.quantized(b, scale, mask, 3, 2, True)
        return np.sum((head(quantized) - head(b)) ** 2)

    least = error(np.ones(8, bool))
    expected = [error(~row) - least for row in np.eye(8, dtype=bool)]
    importance = model.get_layer("b_dqa").importance.numpy()
    np.testing.assert_allclose(
        importance, expected, rtol=0.02, atol=1e-3 * max(expected)
    )


# ---- the callback


def twin(network, run_eagerly=True):
    # Eagerly: what is under test is when calibration happens, and graphs take seconds.
    model = dqa.quantize_model(network, CONFIG)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=run_eagerly)
    return model


def test_callback_calibrates_under_evaluate_and_predict(network, data, calibrated):
    y = np.zeros((len(data), 3))
    for run in (
        lambda m, c: m.evaluate(data, y, callbacks=[c], verbose=0),
        lambda m, c: m.predict(data, callbacks=[c], verbose=0),
    ):
        model, passes = twin(network), Passes(data)
        run(model, dqa.CalibrationCallback(passes, verbose=0))
        assert passes.count == 1
        assert state(model) == state(calibrated)


def test_evaluate_with_the_callback_already_measures_the_quantized_model(network, data):
    model = twin(network, run_eagerly=False)
    y = network.predict(data, verbose=0)
    callback = dqa.CalibrationCallback(data, verbose=0)
    loss = model.evaluate(data, y, callbacks=[callback], verbose=0)
    assert loss > 0
    assert model.evaluate(data, y, verbose=0) == pytest.approx(loss)


def test_callback_calibrates_once_under_fit_with_validation(network, data, calibrated):
    model, passes = twin(network), Passes(data)
    y = np.zeros((len(data), 3))
    callback = dqa.CalibrationCallback(passes, verbose=0)
    model.fit(
        data, y, validation_data=(data, y), epochs=2, callbacks=[callback], verbose=0
    )
    assert passes.count == 1
    assert state(model) == state(calibrated)
    model.evaluate(data, y, callbacks=[callback], verbose=0)
    assert passes.count == 2


def test_callback_calibrates_again_after_a_fit_that_was_interrupted(network, data):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, passes = twin(network), Passes(data)
    y = np.zeros((len(data), 3))
    callback = dqa.CalibrationCallback(passes, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, y, callbacks=[callback, Interrupt()], verbose=0)
    model.evaluate(data, y, callbacks=[callback], verbose=0)
    assert passes.count == 2


# ---- models built by hand


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4, activation="relu")
        self.codes = dqa.layers.DQA(bits=3, name="codes")
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(self.codes(self.dense(x)))


@pytest.mark.parametrize("form", ["array", "generator", "tf.data"])
def test_a_subclassed_model_with_layers_added_by_hand(form):
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    model = Subclassed()
    source = {
        "array": x,
        "generator": (x[i : i + 10] for i in (0, 10, 20)),
        "tf.data": tf.data.Dataset.from_tensor_slices(x).batch(8),
    }[form]
    dqa.calibrate(model, source, verbose=0)
    dense = np.asarray(model.dense(x))
    alone, layer = one_layer(4, bits=3)
    dqa.calibrate(alone, dense, verbose=0)
    np.testing.assert_array_equal(model.codes.mask, layer.mask)
    np.testing.assert_allclose(model.codes.scale, layer.scale, rtol=1e-5)


def test_a_model_that_was_compiled_and_run_before_quantizes_afterwards(network, data):
    model = twin(network, run_eagerly=False)
    before = model.predict(data, verbose=0)
    dqa.calibrate(model, data, verbose=0)
    assert np.any(model.predict(data, verbose=0) != before)


# ---- errors


def _nan(x):
    x = x.copy()
    x[17, 2, 3, 1] = np.nan
    return x


def _infinite(x):
    x = x.copy()
    x[17, 2, 3, 1] = -np.inf
    return x


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:0], "dataset is empty"),
        (lambda x: iter(()), "dataset is empty"),
        (
            lambda x: x[:, :5],
            r"must have shape \(None, 6, 6, 2\). Received: \(32, 5, 6",
        ),
        (lambda x: list(x), "Is a batch axis missing"),
        (lambda x: iter(x), "Is a batch axis missing"),
        (lambda x: tf.data.Dataset.from_tensor_slices(x), "Is a batch axis missing"),
        (_nan, "inputs must be finite. Received: NaN .* in image 17"),
        (_infinite, "inputs must be finite"),
        (lambda x: iter([x, _nan(x)]), "NaN or infinity in image 57"),
        (lambda x: iter([x, x[:, :5]]), r"Received: \(40, 5, 6, 2\)"),
        (lambda x: "images", "Received: str"),
    ],
    ids=[
        "empty array",
        "empty generator",
        "mis-shaped",
        "list of images",
        "unbatched generator",
        "unbatched tf.data",
        "nan",
        "infinity",
        "nan in the second batch",
        "mis-shaped second batch",
        "text",
    ],
)
def test_bad_data_is_named_and_leaves_the_model_as_it_was(
    spoil, message, data, calibrated
):
    before = weights(calibrated)
    output = np.asarray(calibrated(data)).tobytes()
    with pytest.raises(ValueError, match=message):
        dqa.calibrate(calibrated, spoil(data), verbose=0)
    assert weights(calibrated) == before
    assert np.asarray(calibrated(data)).tobytes() == output


def test_infinity_between_the_layers_is_named_by_the_first_quantizer_it_meets(
    network, data
):
    model = dqa.quantize_model(network, CONFIG)
    layer = model.get_layer("b")
    kernel = layer.kernel.numpy()
    kernel[..., 3] = np.nan
    layer.kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"'b_dqa'.*weights of the layers before it"):
        dqa.calibrate(model, data, verbose=0)
    assert not any(layer.is_calibrated for layer in quantizer_layers(model))


def test_an_interrupted_greedy_ranking_leaves_the_model_as_it_was(
    network, data, monkeypatch
):
    model = dqa.quantize_model(network, CONFIG.replace(ranking="greedy"))
    dqa.calibrate(model, data, verbose=0)
    before = weights(model)

    class Stop(Exception):
        pass

    # Two batches are gathered, the first layer is ranked, then it stops.
    trials = iter(range(3))

    def interrupted(*args):
        if next(trials, None) is None:
            raise Stop

    monkeypatch.setattr("tqdm.tqdm.update", interrupted)
    with pytest.raises(Stop):
        dqa.calibrate(model, 2 * data, verbose=0)
    assert weights(model) == before


def test_a_model_without_quantizers_is_told_what_to_do(network, data):
    with pytest.raises(ValueError, match=r"no quantizing layer\. Use .*quantize_model"):
        dqa.calibrate(network, data, verbose=0)


def test_a_layer_that_is_never_called_is_named():
    class Unused(Subclassed):
        def __init__(self):
            super().__init__()
            self.spare = dqa.layers.DQA(name="spare")
            self.spare.build((None, 4))

    x = np.random.default_rng(0).random((10, 5))
    with pytest.raises(ValueError, match="'spare' was never called"):
        dqa.calibrate(Unused(), x, verbose=0)


# ---- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_and_can_be_hidden(network, data, monkeypatch):
    model = dqa.quantize_model(network, CONFIG.replace(ranking="greedy"))
    monkeypatch.setattr("sys.stderr", Terminal())
    dqa.calibrate(model, data, verbose=0)
    assert sys.stderr.getvalue() == ""
    dqa.calibrate(model, data)
    shown = sys.stderr.getvalue()
    assert "40/40" in shown  # images
    assert "18/18" in shown  # trials: two layers of 8 channels and one without


def test_no_progress_bar_ends_up_in_a_log_file(network, data, capsys):
    model = dqa.quantize_model(network, CONFIG)
    dqa.calibrate(model, data)
    assert capsys.readouterr() == ("", "")


# ---- declared batch sizes, low precision


def _sized(size, shared):
    inputs = keras.Input(batch_shape=(size, 8, 8, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="one")(inputs)
    conv = keras.layers.Conv2D(6, 3, padding="same", activation="tanh", name="two")
    x = keras.layers.Add()([x, conv(conv(x) if shared else x)])
    x = keras.ops.reshape(x, (size or -1, 6 * 6 * 6))  # Keras' batch, written out
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "config",
    [dqa.DQAConfig(), dqa.DQAConfig.paper(), dqa.DQAConfig(budget_bits=3)],
    ids=["mse", "greedy", "budget"],
)
def test_a_declared_batch_size_needs_no_argument(images, size, shared, config):
    x = images[:16]
    states = []
    for batch in (size, None):
        keras.utils.set_random_seed(1)
        model = _sized(batch, shared)
        quantized = dqa.quantize_model(model, config)
        dqa.calibrate(quantized, x, batch_size=size, verbose=0)
        states.append((quantized, dqa.storage_bits(quantized, x, batch_size=size)))
    (sized, measured), (free, expected) = states
    assert measured.total == pytest.approx(expected.total, rel=0.02)
    for ours, theirs in zip(
        quantizer_layers(sized), quantizer_layers(free), strict=True
    ):
        np.testing.assert_allclose(ours.scale, theirs.scale, rtol=0.3)
    # The usual batch size does not fit, and need not.
    dqa.calibrate(sized, x, verbose=0)


@pytest.mark.parametrize(
    "policy", ["bfloat16", "mixed_bfloat16", "float16", "mixed_float16", "float64"]
)
@pytest.mark.parametrize(
    "config", [dqa.DQAConfig(), dqa.DQAConfig.paper()], ids=["mse", "greedy"]
)
def test_models_of_every_precision_calibrate(images, policy, config):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name="a"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    quantized = dqa.quantize_model(model, config)
    dqa.calibrate(quantized, images[:16], verbose=0)
    (layer,) = quantizer_layers(quantized)
    assert layer.is_calibrated
    assert layer.compute_dtype == keras.DTypePolicy(policy).compute_dtype
    assert 3 < dqa.storage_bits(quantized, images[:16]).total < 6
