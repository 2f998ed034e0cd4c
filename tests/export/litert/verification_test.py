"""What LiteRT computes otherwise than Keras, said before a file is written."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite
from dqa_keras.export.litert.verification import VerificationError, compare_outputs

layers = keras.layers
# The first pixel's values have length 0 behind the ReLU.
PIXELS = np.ones((2, 2, 2, 4), np.float32)
PIXELS[:, 0, 0] = -1


@pytest.mark.parametrize("mode", ["builtin", "packed"])
@pytest.mark.parametrize(
    ("behind", "place"),
    [
        ([], "in output 0"),
        ([layers.Conv2D(4, 1, activation="relu", name="c"), layers.Flatten()], "'c_"),
    ],
    ids=["output", "quantizer"],
)
def test_nan_that_keras_does_not_compute_is_an_error(behind, place, mode, tmp_path):
    model = keras.Sequential(
        [keras.Input((2, 2, 4)), layers.ReLU(), layers.UnitNormalization(), *behind]
    )
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    dqa.calibrate(model, PIXELS, verbose=0)
    path = tmp_path / "model.tflite"
    with pytest.raises(VerificationError, match=f"NaN or infinite values .*{place}"):
        export_tflite(model, path, mode=mode, samples=PIXELS)
    assert not path.exists()


def test_what_keras_computes_as_nan_or_infinite_is_not_compared():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.log(inputs))
    x = np.array([[-1, 0, np.e]], np.float32)

    def run(image):
        return [np.array([[7, -7, 1.5]], np.float32)]

    compared = compare_outputs(run, model, x)
    assert compared.difference == pytest.approx(0.5)
    assert compared.output_range == pytest.approx(1)


@pytest.mark.parametrize(
    ("shape", "decisions", "agreed"), [((3,), 2, 1), ((1, 2, 3), 4, 3), ((1,), 0, 0)]
)
def test_decisions_are_classes_or_pixels_and_not_single_values(
    shape, decisions, agreed
):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    x = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)

    def run(image):
        other = np.array(image)
        if other.flat[0] == 0:  # of the first image, the first pixel's class
            other[..., 0].flat[0] = 99
        return [other]

    compared = compare_outputs(run, model, x)
    assert (compared.decisions, compared.agreed) == (decisions, agreed)
