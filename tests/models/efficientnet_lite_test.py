"""EfficientNet-Lite: its size, its normalisation, its weight file."""

import keras
import numpy as np
import pytest

from dqa_keras.models import efficientnet_lite
from dqa_keras.models.efficientnet_lite import pytorch_name
from dqa_keras.models.weights import save_weights

_PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def pytorch_file(path, model):
    """A weight file for a model, as PyTorch lays it out, filled with random values."""
    random = np.random.default_rng(0)
    arrays = {}
    for layer in model.layers:
        for variable in layer.variables:
            shape = tuple(variable.shape)
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                shape = (shape[2], 1, *shape[:2])
            elif len(shape) == 4:
                shape = (shape[3], shape[2], *shape[:2])
            elif len(shape) == 2:
                shape = shape[::-1]
            name = f"{pytorch_name(layer.name)}.{_PARTS[variable.name]}"
            arrays[name] = random.random(shape, np.float32) + 0.5
    np.savez(path, **arrays)
    return arrays


@pytest.mark.parametrize(
    ("variant", "millions"), enumerate((4.652, 5.417, 6.092, 8.197, 13.007))
)
def test_variants_have_the_published_numbers_of_parameters(variant, millions):
    model = efficientnet_lite(variant, image_size=(64, 64))
    trained = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert trained / 1e6 == pytest.approx(millions, abs=6e-4)


def test_lite0_has_33_relus_and_takes_raw_pixels():
    model = efficientnet_lite(0)
    assert model.input_shape == (None, 224, 224, 3)
    relus = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    assert len(relus) == 33
    assert {float(relu.max_value) for relu in relus} == {6.0}
    normalise = keras.Model(model.input, model.get_layer("normalise").output)
    pixels = np.full((1, 224, 224, 3), 255, np.float32)
    assert float(normalise(pixels)[0, 0, 0, 0]) == 1.0


def test_weights_land_where_pytorch_had_them(tmp_path):
    model = efficientnet_lite(0, classes=7, image_size=(32, 32))
    arrays = pytorch_file(tmp_path / "w.npz", model)
    assert "_blocks.15._project_conv.weight" in arrays
    filled = efficientnet_lite(0, tmp_path / "w.npz", classes=7, image_size=(32, 32))
    kernel = np.asarray(filled.get_layer("block3_expand").kernel)
    assert kernel[0, 0, 5, 9] == arrays["_blocks.3._expand_conv.weight"][9, 5, 0, 0]
    kernel = np.asarray(filled.get_layer("block3_dw").kernel)
    assert kernel[1, 4, 7, 0] == arrays["_blocks.3._depthwise_conv.weight"][7, 0, 1, 4]
    for layer, name in (("stem_bn", "_bn0"), ("head_bn", "_bn1")):
        variance = np.asarray(filled.get_layer(layer).moving_variance)
        np.testing.assert_array_equal(variance, arrays[f"{name}.running_var"])
    linear = np.asarray(filled.get_layer("linear").kernel)
    np.testing.assert_array_equal(linear, arrays["_fc.weight"].transpose())


def test_weights_of_its_own_come_back(tmp_path):
    model = efficientnet_lite(1, classes=7, image_size=(32, 32))
    save_weights(model, tmp_path / "w.npz")
    other = efficientnet_lite(1, tmp_path / "w.npz", classes=7, image_size=(32, 32))
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        expected = np.asarray(ours, np.float16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(theirs), expected)


def test_a_file_of_another_variant_is_refused(tmp_path):
    model = efficientnet_lite(0, classes=7, image_size=(32, 32))
    pytorch_file(tmp_path / "w.npz", model)
    with pytest.raises(ValueError, match=r"lacks the variable|must have the shape"):
        efficientnet_lite(2, tmp_path / "w.npz", classes=7, image_size=(32, 32))
    with pytest.raises(ValueError, match=r"must be in 0\.\.4. Received: variant=5"):
        efficientnet_lite(5)
