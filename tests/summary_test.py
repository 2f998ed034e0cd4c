import re

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.summary import expected_bits

CONFIG = dqa.DQAConfig(bits=3, extra_bits=2, important_fraction=0.25)


def cells(line):
    return re.split(r"\s{2,}", line.strip())


@pytest.fixture(scope="module")
def quantized(small_cnn, images):
    model = dqa.quantize_model(small_cnn, CONFIG)
    dqa.calibrate(model, images, verbose=0)
    return model


@pytest.fixture(scope="module")
def storage(quantized, images):
    return dqa.storage_bits(quantized, images)


def report(text):
    """The table as dictionaries, and the lines behind it."""
    lines = text.splitlines()
    header = cells(lines[0])
    assert set(lines[1]) == {"-"}
    rows = []
    for line in lines[2:]:
        if len(cells(line)) != len(header):
            break
        rows.append(dict(zip(header, cells(line), strict=True)))
    return rows, lines[2 + len(rows) :]


def test_what_is_printed_is_returned(quantized, capsys):
    text = dqa.summary(quantized)
    assert capsys.readouterr().out == text + "\n"


def test_a_row_for_each_quantizer_with_every_column(quantized, storage):
    rows, _ = report(dqa.summary(quantized, storage))
    assert [row["layer"] for row in rows] == ["first_dqa", "second_dqa"]
    for row, shape, important in zip(
        rows, ("6 x 6 x 8", "4 x 4 x 6"), ("2/8", "2/6"), strict=True
    ):
        layer, measured = (
            quantized.get_layer(row["layer"]),
            storage.layers[row["layer"]],
        )
        assert list(row) == [
            "layer",
            "shape",
            "bits",
            "extra",
            "important",
            "scale",
            "stored bits",
            "KiB",
            "SQNR dB",
        ]
        assert (row["shape"], row["bits"], row["extra"]) == (shape, "3", "2")
        assert row["important"] == important
        low, high = map(float, row["scale"].split(".."))
        scale = layer.scale.numpy()
        np.testing.assert_allclose([low, high], [scale.min(), scale.max()], rtol=0.01)
        assert float(row["stored bits"]) == pytest.approx(measured.bits, abs=6e-4)
        assert float(row["KiB"]) == pytest.approx(measured.kib, abs=6e-3)
        assert float(row["SQNR dB"]) == pytest.approx(measured.sqnr, abs=0.06)


def test_one_scale_for_all_channels_is_shown_once(small_cnn, images):
    config = CONFIG.replace(granularity="tensor", extra_bits=0, clipping="max")
    model = dqa.quantize_model(small_cnn, config)
    dqa.calibrate(model, images, verbose=0)
    rows, _ = report(dqa.summary(model))
    for row in rows:
        scale = model.get_layer(row["layer"]).scale.numpy()[0]
        assert float(row["scale"]) == pytest.approx(scale, rel=0.01)
        assert row["important"].startswith("0/")


def test_totals_stand_beside_int8_and_float32(quantized, storage):
    _, rest = report(dqa.summary(quantized, storage))
    count = 6 * 6 * 8 + 4 * 4 * 6
    assert rest[0] == (
        f"Quantized activations of one input: {count:,}, "
        f"{storage.total:.3f} stored bits each (measured)"
    )
    assert rest[1] == (
        f"Stored: {storage.kib:.1f} KiB; as int8: {count / 1024:.1f} KiB; "
        f"as float32: {4 * count / 1024:.1f} KiB"
    )


def test_skipped_layers_are_listed_with_their_reason(quantized):
    _, rest = report(dqa.summary(quantized))
    assert rest[-2:] == ["Not quantized:", "  head: an output of the model"]


def test_without_storage_it_shows_what_calibration_saw(quantized, storage):
    # Calibrated and measured on the same images: what is missing is one block's header
    # and what fills its last byte, on average less than 3 bytes for each activation.
    rows, rest = report(dqa.summary(quantized))
    assert "(as in calibration)" in rest[0]
    for row in rows:
        measured = storage.layers[row["layer"]]
        missing = measured.bits - float(row["stored bits"])
        assert 0 < missing * measured.activations < 24
        assert float(row["SQNR dB"]) == pytest.approx(measured.sqnr, abs=0.5)
    stored = float(re.search(r"([\d.]+) stored bits each", rest[0]).group(1))
    assert 0 < (storage.total - stored) * storage.activations < 2 * 24


def test_expected_bits_without_extra_bits_are_n():
    layer = dqa.layers.Direct(bits=5)
    model = keras.Sequential([keras.Input((4,)), layer])
    dqa.calibrate(model, np.random.default_rng(0).random((8, 4)), verbose=0)
    assert expected_bits(layer) == 5


def test_before_calibration_it_says_that_values_pass_through(small_cnn):
    rows, rest = report(dqa.summary(dqa.quantize_model(small_cnn, CONFIG)))
    assert len(rows) == 2
    for row in rows:
        assert row["stored bits"] == "not calibrated: passes values through"
    assert rest[0] == "Totals follow once every layer is calibrated."


def test_sizes_unknown_before_run_time_come_from_measured_storage(images):
    layer = dqa.layers.DQA(bits=4, name="q")
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    dqa.calibrate(model, images, verbose=0)
    rows, rest = report(dqa.summary(model))
    assert (rows[0]["shape"], rows[0]["KiB"]) == ("? x ? x 3", "?")
    assert "pass storage=storage_bits(model, data)" in rest[0]
    storage = dqa.storage_bits(model, images)
    rows, rest = report(dqa.summary(model, storage))
    assert float(rows[0]["KiB"]) == pytest.approx(storage.kib, abs=6e-3)
    assert f"Quantized activations of one input: {8 * 8 * 3}" in rest[0]


def test_a_model_without_quantizers_says_so(small_cnn):
    assert "This model has no quantizers." in dqa.summary(small_cnn)


def test_an_unbuilt_layer_is_listed():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.codes = dqa.layers.DQA(name="codes")

        def call(self, x):
            return self.codes(x)

    assert "codes" in dqa.summary(Subclassed())
