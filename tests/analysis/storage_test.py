import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras.analysis.storage import LayerStorage, Storage
from dqa_keras.codec import reference, sizes, symbols


def one_layer(layer, channels=6):
    return keras.Sequential([keras.Input((5, channels)), layer])


@pytest.fixture(scope="module")
def data():
    """Sparse and skewed, as behind a ReLU: (30, 5, 6)."""
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 5, 6)) * [1, 2, 3, 1, 0.1, 8]
    return np.maximum(x, 0).astype(np.float32)


def counted(x, layer):
    """Bits per activation: what the codec writes for each input, mask and lengths."""
    n, m = layer.bits, layer.extra_bits
    scale, mask = layer.scale.numpy(), layer.mask.numpy()
    q = oracle.codes(x, scale, mask, n, m, layer.table().signed)
    table = layer.table()
    blobs = [
        reference.pack(codes.astype(symbols.code_dtype(table))[None], table, "residual")
        for codes in q
    ]
    strips = sum(len(blob) - reference.read_header(blob).offsets[0] for blob in blobs)
    return (8 * strips + len(x) * (mask.size + 8 * 2**m)) / x.size


@pytest.mark.parametrize("shift", [0.0, -1.0])
@pytest.mark.parametrize(("n", "m"), [(4, 2), (3, 3), (2, 1)])
def test_stored_bits_are_those_of_real_codes_and_codewords(n, m, shift, data):
    layer = dqa.layers.DQA(bits=n, extra_bits=m, important_fraction=0.5, name="q")
    model = one_layer(layer)
    x = data + np.float32(shift)
    dqa.calibrate(model, x[:20], verbose=0)
    measured = dqa.storage_bits(model, x, batch_size=7)
    assert measured.layers["q"].bits == pytest.approx(counted(x, layer), rel=1e-9)
    assert measured.layers["q"].activations == 30
    assert measured.total == pytest.approx(measured.layers["q"].bits, rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_coded_base_codes_are_counted_as_the_codec_writes_them(shift, data):
    layer = dqa.layers.DQA(
        bits=3, extra_bits=2, important_fraction=0.5, entropy="all", name="q"
    )
    x = np.tile(data, (1, 8, 4)) + np.float32(shift)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    dqa.calibrate(model, x[:20], verbose=0)
    table = layer.table()
    blobs = [reference.pack(image[None], table, "all") for image in x]
    strips = sum(len(blob) - reference.read_header(blob).offsets[0] for blob in blobs)
    bits = 8 * strips + len(x) * (table.mask.size + 8 * 2**2 + 8 * 2**3)
    measured = dqa.storage_bits(model, x, batch_size=7)
    assert measured.total == pytest.approx(bits / x.size, rel=1e-12)
    assert measured.total < (3.5 if shift == 0 else 4)


def test_no_important_channel_costs_the_table_only(data):
    layer = dqa.layers.DQA(bits=4, extra_bits=2, important_fraction=0.0, name="q")
    model = one_layer(layer)
    dqa.calibrate(model, data, verbose=0)
    bits = dqa.storage_bits(model, data).layers["q"].bits
    assert bits == pytest.approx(4 + (6 + 8 * 4) / 30, rel=1e-9)


def test_strips_blocks_and_blocks_that_do_not_shrink_are_counted():
    """Two strips of several blocks; behind the first image, residuals that are rare."""
    random = np.random.default_rng(1)
    x = np.abs(random.normal(size=(3, 20, 90, 64))).astype(np.float32)
    x *= random.random(x.shape) < 0.3
    layer = dqa.layers.DQA(bits=4, extra_bits=2, important_fraction=0.5, name="q")
    model = keras.Sequential([keras.Input((20, 90, 64)), layer])
    dqa.calibrate(model, x, verbose=0)
    x[1:] = layer.scale.numpy() * 3  # the residual of every important value is 3
    assert layer.table().residual_lengths[3] > 2
    assert sizes.default_strip_rows(20, 90 * 64) < 20
    measured = dqa.storage_bits(model, x, batch_size=2).layers["q"].bits
    assert measured == pytest.approx(counted(x, layer), rel=1e-12)
    assert dqa.storage_bits(model, x[:1]).total < 5 - 0.1
    assert dqa.storage_bits(model, x[1:]).total > 5


@pytest.mark.parametrize(
    "layer",
    [
        dqa.layers.Direct(bits=3, name="q"),
        dqa.layers.NoisyQuant(bits=5, name="q"),
        dqa.layers.DQA(bits=7, extra_bits=0, name="q"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_without_extra_bits_n_bits_are_stored_and_the_last_byte_filled(layer, data):
    model = one_layer(layer)
    dqa.calibrate(model, data, verbose=0)
    storage = dqa.storage_bits(model, data)
    assert storage.layers["q"].kib == -(-layer.bits * 30 // 8) / 1024
    assert storage.total == pytest.approx(8 * -(-layer.bits * 30 // 8) / 30, rel=1e-12)


@pytest.mark.parametrize("layer_class", [dqa.layers.DQA, dqa.layers.NoisyQuant])
def test_sqnr_is_that_of_the_data(layer_class, data):
    layer = layer_class(bits=3, name="q")
    model = one_layer(layer)
    dqa.calibrate(model, data[:10], verbose=0)
    sqnr = dqa.storage_bits(model, data).layers["q"].sqnr
    expected = oracle.sqnr(data, np.asarray(layer(data)))
    assert sqnr == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("form", ["tf.data", "generator", "x and y"])
def test_any_form_of_data_measures_the_same(form, data):
    model = one_layer(dqa.layers.DQA(name="q"))
    dqa.calibrate(model, data, verbose=0)
    source = {
        "tf.data": tf.data.Dataset.from_tensor_slices(data).batch(8),
        "generator": (data[i : i + 1] for i in range(30)),
        "x and y": (data, np.zeros(30)),
    }[form]
    expected = dqa.storage_bits(model, data)
    measured = dqa.storage_bits(model, source)
    assert measured.total == expected.total
    assert measured.layers["q"].sqnr == pytest.approx(
        expected.layers["q"].sqnr, abs=1e-3
    )


def test_layers_are_measured_on_the_quantized_model_and_weighted_by_size(images):
    model = dqa.quantize_model(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(8, 3, activation="relu", name="a"),
                keras.layers.Conv2D(4, 3, activation="relu", name="b"),
                keras.layers.GlobalAveragePooling2D(),
            ]
        ),
        dqa.DQAConfig(bits=2, extra_bits=2, important_fraction=0.5),
    )
    dqa.calibrate(model, images, verbose=0)
    storage = dqa.storage_bits(model, images, batch_size=len(images))
    expected = {}
    for name in ("a_dqa", "b_dqa"):
        layer = model.get_layer(name)
        front = np.asarray(keras.Model(model.input, layer.input)(images))
        expected[name] = counted(front, layer)
        assert storage.layers[name].activations == front[0].size
        # A convolution's last bit may differ between graphs and flip a code.
        assert storage.layers[name].bits == pytest.approx(expected[name], rel=1e-4)
    counts = {"a_dqa": 6 * 6 * 8, "b_dqa": 4 * 4 * 4}
    total = sum(expected[name] * counts[name] for name in counts) / sum(counts.values())
    assert storage.total == pytest.approx(total, rel=1e-4)
    assert storage.activations == sum(counts.values())
    assert storage.kib == pytest.approx(total * sum(counts.values()) / 8192, rel=1e-4)


def test_a_shared_layer_stores_the_activations_of_each_call(data):
    a, b = keras.Input((5, 6)), keras.Input((5, 6))
    layer = dqa.layers.DQA(bits=3, name="q")
    model = keras.Model([a, b], [layer(a), layer(b)])
    dqa.calibrate(model, [data, 2 * data], verbose=0)
    storage = dqa.storage_bits(model, [data, 2 * data])
    assert storage.layers["q"].activations == 60


def test_measuring_changes_nothing(data):
    model = one_layer(dqa.layers.DQA(name="q"))
    dqa.calibrate(model, data, verbose=0)
    before = [weight.numpy().tobytes() for weight in model.weights]
    dqa.storage_bits(model, 3 * data)
    assert [weight.numpy().tobytes() for weight in model.weights] == before


def test_totals_of_a_storage():
    storage = Storage(
        {"a": LayerStorage(4.0, 3000, 20.0), "b": LayerStorage(8.0, 1000, 30.0)}
    )
    assert storage.activations == 4000
    assert storage.total == 5.0
    assert storage.kib == pytest.approx(20_000 / 8 / 1024)


def test_an_uncalibrated_layer_is_named(data):
    model = one_layer(dqa.layers.DQA(name="q"))
    with pytest.raises(ValueError, match="'q' is not calibrated"):
        dqa.storage_bits(model, data)


def test_a_model_without_quantizers_is_refused(data):
    model = one_layer(keras.layers.ReLU())
    with pytest.raises(ValueError, match="no quantizing layer"):
        dqa.storage_bits(model, data)


def test_data_that_does_not_fit_is_refused(data):
    model = one_layer(dqa.layers.DQA(name="q"))
    dqa.calibrate(model, data, verbose=0)
    with pytest.raises(ValueError, match="must have shape"):
        dqa.storage_bits(model, data[:, :, :3])
    with pytest.raises(ValueError, match="dataset is empty"):
        dqa.storage_bits(model, data[:0])
