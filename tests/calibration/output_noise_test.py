import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.calibration import output_noise
from dqa_keras.layers import quantizer_layers


@pytest.fixture(scope="module")
def quantized(small_cnn, images):
    model = dqa.quantize_model(small_cnn, dqa.DQAConfig(bits=2, extra_bits=1))
    dqa.calibrate(model, images, verbose=0)
    return model


def test_each_layer_alone_does_what_a_model_with_only_it_does(
    quantized, small_cnn, images
):
    noise = output_noise.output_sqnr(quantized, images, batch_size=16)
    wanted = np.asarray(small_cnn(images), np.float64)

    def sqnr(model):
        error = np.asarray(model(images), np.float64) - wanted
        return 10 * np.log10(np.sum(wanted**2) / np.sum(error**2))

    assert noise.total == pytest.approx(sqnr(quantized), abs=0.01)
    for source in ("first", "second"):
        alone = dqa.quantize_model(
            small_cnn, dqa.DQAConfig(bits=2, extra_bits=1), filters=source
        )
        dqa.calibrate(alone, images, verbose=0)
        assert noise.layers[f"{source}_dqa"] == pytest.approx(sqnr(alone), abs=0.01)


def test_the_model_is_left_as_it_was(quantized, images):
    before = [layer.get_weights() for layer in quantizer_layers(quantized)]
    output_noise.output_sqnr(quantized, images[:8])
    with pytest.raises(ValueError, match="must have shape"):
        output_noise.output_sqnr(quantized, images[..., :2])
    for layer, weights in zip(quantizer_layers(quantized), before, strict=True):
        for ours, theirs in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_model_that_is_not_calibrated_is_refused(small_cnn, images):
    model = dqa.quantize_model(small_cnn, dqa.DQAConfig(bits=4))
    with pytest.raises(ValueError, match="'first_dqa' is not calibrated"):
        output_noise.output_sqnr(model, images)
