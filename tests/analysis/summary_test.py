import re

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.analysis.summary import expected_bits

CONFIG = dqa.DQAConfig(bits=3, extra_bits=2, important_fraction=0.25)


def cells(line):
    return [cell.strip() for cell in re.split("[┃│]", line)[1:-1]]


@pytest.fixture(scope="module")
def quantized(small_cnn, images):
    model = dqa.quantize_model(small_cnn, CONFIG)
    dqa.calibrate(model, images, verbose=0)
    return model


@pytest.fixture(scope="module")
def storage(quantized, images):
    return dqa.storage_bits(quantized, images)


def name_of(row):
    return row["Layer (type)"].split()[0]


def report(text):
    """The table as dictionaries, and the lines behind it."""
    title, top, *lines = text.splitlines()
    assert title.startswith("Quantizers of ")
    header = cells(lines[0])
    assert len({len(line) for line in [top, *lines[:3]]}) == 1  # columns line up
    end = next(index for index, line in enumerate(lines) if line.startswith("└"))
    rows = [
        dict(zip(header, cells(line), strict=True))
        for line in lines[2:end]
        if line.startswith("│")
    ]
    return rows, lines[end + 1 :]


def test_what_is_printed_is_returned(quantized, capsys):
    text = dqa.summary(quantized)
    assert capsys.readouterr().out == text + "\n"


def test_a_row_for_each_quantizer_with_every_column(quantized, storage):
    rows, _ = report(dqa.summary(quantized, storage))
    names = [row["Layer (type)"] for row in rows]
    assert names == ["first_dqa (DQA)", "second_dqa (DQA)"]
    for row, shape, important in zip(
        rows, ("6 x 6 x 8", "4 x 4 x 6"), ("2/8", "2/6"), strict=True
    ):
        layer, measured = (
            quantized.get_layer(name_of(row)),
            storage.layers[name_of(row)],
        )
        assert list(row) == [
            "Layer (type)",
            "Shape",
            "Bits",
            "Extra",
            "Important",
            "Scale",
            "Stored bits",
            "KiB",
            "SQNR dB",
        ]
        assert (row["Shape"], row["Bits"], row["Extra"]) == (shape, "3", "2")
        assert row["Important"] == important
        low, high = map(float, row["Scale"].split(".."))
        scale = layer.scale.numpy()
        np.testing.assert_allclose([low, high], [scale.min(), scale.max()], rtol=0.01)
        assert float(row["Stored bits"]) == pytest.approx(measured.bits, abs=6e-4)
        assert float(row["KiB"]) == pytest.approx(measured.kib, abs=6e-3)
        assert float(row["SQNR dB"]) == pytest.approx(measured.sqnr, abs=0.06)


def test_one_scale_for_all_channels_is_shown_once(small_cnn, images):
    config = CONFIG.replace(granularity="tensor", extra_bits=0, clipping="max")
    model = dqa.quantize_model(small_cnn, config)
    dqa.calibrate(model, images, verbose=0)
    rows, _ = report(dqa.summary(model))
    for row in rows:
        scale = model.get_layer(name_of(row)).scale.numpy()[0]
        assert float(row["Scale"]) == pytest.approx(scale, rel=0.01)
        assert row["Important"].startswith("0/")


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
        measured = storage.layers[name_of(row)]
        missing = measured.bits - float(row["Stored bits"])
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
        assert row["Stored bits"] == row["SQNR dB"] == "-"
    assert rest[0] == (
        "Not calibrated yet: first_dqa, second_dqa. Values pass through unchanged; "
        "totals follow."
    )


def test_sizes_unknown_before_run_time_come_from_measured_storage(images):
    layer = dqa.layers.DQA(bits=4, name="q")
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    dqa.calibrate(model, images, verbose=0)
    rows, rest = report(dqa.summary(model))
    assert (rows[0]["Shape"], rows[0]["KiB"]) == ("? x ? x 3", "?")
    assert "pass storage=storage_bits(model, data)" in rest[0]
    storage = dqa.storage_bits(model, images)
    rows, rest = report(dqa.summary(model, storage))
    assert float(rows[0]["KiB"]) == pytest.approx(storage.kib, abs=6e-3)
    assert f"Quantized activations of one input: {8 * 8 * 3}" in rest[0]


def test_a_model_without_quantizers_says_so(small_cnn):
    assert "There are none." in dqa.summary(small_cnn)


def test_an_unbuilt_layer_is_listed():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.codes = dqa.layers.DQA(name="codes")

        def call(self, x):
            return self.codes(x)

    assert "codes" in dqa.summary(Subclassed())
