import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.analysis import baselines
from dqa_keras.calibration import statistics
from dqa_keras.layers import quantizer_layers


@pytest.fixture(scope="module")
def model(small_cnn, images):
    quantized = dqa.quantize_model(small_cnn, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(quantized, images, verbose=0)
    return quantized


def test_it_computes_what_a_directly_quantized_model_computes(model, small_cnn, images):
    observers = statistics.collect(model, images, 32, 0, 0, None).observers
    results = baselines.direct(
        model, observers, (2, 4), lambda run: np.asarray(run(images))
    )
    for bits, outputs in results.items():
        config = dqa.DQAConfig(bits=bits, method="direct")
        peer = dqa.quantize_model(small_cnn, config)
        dqa.calibrate(peer, images, verbose=0)
        np.testing.assert_allclose(outputs, peer(images), rtol=1e-5, atol=1e-6)
    assert np.abs(results[2] - results[4]).max() > 1e-3


def test_the_model_is_left_as_it_was(model, images):
    before = np.asarray(model(images))
    observers = statistics.collect(model, images, 32, 0, 0, None).observers
    with pytest.raises(RuntimeError, match="stop"):
        baselines.direct(model, observers, (3,), _stop)
    assert all(layer.hook is None for layer in quantizer_layers(model))
    np.testing.assert_array_equal(np.asarray(model(images)), before)


def _stop(run):
    raise RuntimeError("stop")
