"""The callback's event file, read back with TensorBoard's own reader."""

import importlib.util

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import dqa_keras as dqa


@pytest.fixture
def model():
    quantized = dqa.quantize_model(
        keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8, activation="relu", name="hidden"),
                keras.layers.Dense(1),
            ]
        ),
        dqa.DQAConfig(bits=3, extra_bits=2),
    )
    quantized.compile("adam", "mse")
    return quantized


def test_figures_of_every_epoch_are_in_the_event_file(model, tmp_path):
    x = np.random.default_rng(0).random((32, 4)).astype(np.float32)
    callbacks = [
        dqa.CalibrationCallback(x, verbose=0),
        dqa.TensorBoardCallback(tmp_path, x),
    ]
    model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=callbacks)
    events = EventAccumulator(str(tmp_path / "dqa")).Reload()
    tags = set(events.Tags()["tensors"])
    assert tags == {
        "stored_bits/total",
        "stored_bits/hidden_dqa",
        "sqnr/hidden_dqa",
        "activations/hidden_dqa",
        "codes/hidden_dqa",
    }
    storage = dqa.storage_bits(model, x)
    for tag, value in (
        ("stored_bits/total", storage.total),
        ("sqnr/hidden_dqa", storage.layers["hidden_dqa"].sqnr),
    ):
        seen = events.Tensors(tag)
        assert [event.step for event in seen] == [0, 1, 2]
        # The last epoch's weights are those that the model still has.
        last = make_ndarray(seen[-1].tensor_proto)
        assert float(last) == pytest.approx(value, rel=1e-4)
    (*_, codes) = events.Tensors("codes/hidden_dqa")
    buckets = make_ndarray(codes.tensor_proto)  # (buckets, [left, right, count])
    assert buckets[:, 2].sum() == 32 * 8
    assert 0 <= buckets[0, 0] <= buckets[-1, 1] <= 2**5 - 1


def test_without_tensorboard_it_says_what_to_install(monkeypatch, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "tensorboard" else find_spec(name),
    )
    with pytest.raises(ImportError, match="pip install tensorboard"):
        dqa.TensorBoardCallback(tmp_path, np.zeros((1, 4)))


def test_a_model_that_is_not_calibrated_is_refused(model, tmp_path):
    x = np.zeros((4, 4), np.float32)
    callback = dqa.TensorBoardCallback(tmp_path, x)
    with pytest.raises(ValueError, match="not calibrated"):
        model.fit(x, x[:, :1], verbose=0, callbacks=[callback])
