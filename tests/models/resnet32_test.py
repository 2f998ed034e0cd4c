"""ResNet-32: its shape, its weight file, and what its parts compute."""

import keras
import numpy as np
import pytest

from dqa_keras.models import resnet32
from dqa_keras.models.resnet32 import MEAN, STD
from dqa_keras.models.weights import save_weights


def pytorch_file(path, change=None):
    """A weight file as PyTorch names it, filled with random values."""
    random = np.random.default_rng(0)
    arrays = {}

    def norm(name, size):
        for part in ("weight", "bias", "running_mean"):
            arrays[f"{name}.{part}"] = random.normal(size=size).astype(np.float32)
        arrays[f"{name}.running_var"] = random.random(size, np.float32) + 0.5

    def conv(name, out, into):
        arrays[f"{name}.weight"] = random.normal(size=(out, into, 3, 3)).astype("f4")

    conv("conv1", 16, 3)
    norm("bn1", 16)
    before = 16
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(5):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1", filters, before)
            norm(f"{name}.bn1", filters)
            conv(f"{name}.conv2", filters, filters)
            norm(f"{name}.bn2", filters)
            before = filters
    arrays["linear.weight"] = random.normal(size=(10, 64)).astype(np.float32)
    arrays["linear.bias"] = random.normal(size=10).astype(np.float32)
    if change:
        change(arrays)
    np.savez(path, **arrays)
    return arrays


def test_it_has_31_relus_and_takes_raw_pixels():
    model = resnet32()
    relus = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    assert len(relus) == 31
    pixels = np.full((1, 32, 32, 3), 128, np.float32)
    normalise = keras.Model(model.input, model.get_layer("normalise").output)
    expected = (128 / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(normalise(pixels)[0, 0, 0], expected, rtol=1e-5)


def test_weights_land_where_pytorch_had_them(tmp_path):
    arrays = pytorch_file(tmp_path / "w.npz")
    model = resnet32(str(tmp_path / "w.npz"))
    kernel = np.asarray(model.get_layer("layer2_0_conv1").kernel)
    # HWIO here, OIHW there.
    assert kernel[0, 2, 5, 7] == arrays["layer2.0.conv1.weight"][7, 5, 0, 2]
    norm = model.get_layer("layer3_4_bn2")
    assert np.array_equal(norm.moving_variance, arrays["layer3.4.bn2.running_var"])
    assert np.array_equal(
        model.get_layer("linear").kernel, arrays["linear.weight"].transpose()
    )


def test_a_strided_convolution_pads_both_sides(tmp_path):
    arrays = pytorch_file(tmp_path / "w.npz")
    model = resnet32(str(tmp_path / "w.npz"))
    layer = model.get_layer("layer2_0_conv1")
    part = keras.Model(model.get_layer("layer1_4_relu2").output, layer.output)
    x = np.random.default_rng(1).normal(size=(1, 32, 32, 16)).astype(np.float32)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    weight = arrays["layer2.0.conv1.weight"]
    at = padded[6:9, 10:13]  # output row 3, column 5
    expected = np.einsum("hwi,oihw->o", at, weight)
    np.testing.assert_allclose(part(x)[0, 3, 5], expected, rtol=1e-3, atol=1e-3)


def test_the_shortcut_takes_every_second_pixel_between_zeros():
    model = resnet32()
    shortcut = model.get_layer("layer3_0_shortcut")
    part = keras.Model(model.get_layer("layer2_4_relu2").output, shortcut.output)
    x = np.random.default_rng(1).normal(size=(1, 16, 16, 32)).astype(np.float32)
    y = np.asarray(part(x))
    assert y.shape == (1, 8, 8, 64)
    assert np.array_equal(y[..., 16:48], x[:, ::2, ::2])
    assert not y[..., :16].any()
    assert not y[..., 48:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("layer1.2.bn1.bias"), r"lacks .* 'layer1\.2\.bn1\.bias'"),
        (lambda a: a.update({"linear.bias": np.zeros(9, "f4")}), "shape"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, change, message):
    pytorch_file(tmp_path / "w.npz", change)
    with pytest.raises(ValueError, match=message):
        resnet32(str(tmp_path / "w.npz"))


def test_weights_of_its_own_come_back(tmp_path):
    model = resnet32()
    save_weights(model, tmp_path / "w.npz")
    other = resnet32(tmp_path / "w.npz")
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        expected = np.asarray(ours, np.float16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(theirs), expected)


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match=r"path of an \.npz, or one of .*'mnist'"):
        resnet32("mnist")
