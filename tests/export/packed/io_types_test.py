"""Bytes at the ends of packed models, against the same models on float32 values."""

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.export import export_tflite, load_packed, read_metadata
from dqa_keras.export.packed import pack
from dqa_keras.export.plan.reference import Reference

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 55.0, 70.0]

layers = keras.layers


@pytest.fixture(scope="module")
def pictures():
    """Bytes, as a camera gives them."""
    return np.random.default_rng(0).integers(0, 256, (8, 10, 12, 3), dtype=np.uint8)


def normalised(pictures):
    return ((pictures - np.array(MEAN)) / np.array(STD)).astype(np.float32)


def quantized(inputs, outputs, samples):
    model = dqa.quantize_model(keras.Model(inputs, outputs), dqa.DQAConfig(bits=4))
    dqa.calibrate(model, samples, verbose=0)
    return model


@pytest.fixture(scope="module")
def padded_model(pictures):
    """Its padding is 0 of the normalised values, which no byte need stand for."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return quantized(inputs, layers.Dense(3)(x), normalised(pictures))


def run(path, x):
    interpreter = load_packed(path)
    interpreter.allocate_tensors()
    results = []
    for image in x:
        (detail,) = interpreter.get_input_details()
        interpreter.set_tensor(detail["index"], image[None].astype(detail["dtype"]))
        interpreter.invoke()
        (detail,) = interpreter.get_output_details()
        results.append(interpreter.get_tensor(detail["index"])[0])
    return np.stack(results)


def test_normalization_goes_into_the_file(padded_model, pictures, tmp_path):
    samples = normalised(pictures)
    export_tflite(padded_model, tmp_path / "f", mode="packed", samples=samples)
    report = export_tflite(
        padded_model, tmp_path / "b", mode="packed", samples=samples, inputs="uint8",
        normalization=(MEAN, STD),
    )  # fmt: skip
    assert report.max_difference < 0.2 * report.output_range
    outputs = run(tmp_path / "b", pictures)
    # Values of the input's 16-bit codes may differ by the last one.
    exact = run(tmp_path / "f", samples)
    np.testing.assert_allclose(outputs, exact, atol=0.02 * np.abs(exact).max())
    ((plan, constants),) = pack.read_plans((tmp_path / "b").read_bytes())
    expected = [Reference(plan, constants)([image])[0][0] for image in pictures]
    np.testing.assert_array_equal(outputs, np.reshape(expected, outputs.shape))
    # Whoever feeds the file has nothing to normalise.
    config = read_metadata(tmp_path / "b").config
    assert config["input"] == {"mean": [0.0], "std": [1.0]}


@pytest.mark.parametrize("scale", [1 / 255, 0.5, -1.0, 1.01])
def test_samples_that_are_no_bytes_are_refused(padded_model, pictures, tmp_path, scale):
    with pytest.raises(ValueError, match=r"whole numbers 0\.\.255.*normalization="):
        export_tflite(
            padded_model, tmp_path / "b", mode="packed", samples=scale * pictures,
            inputs="uint8",
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"\(byte - mean\) / std.*units of bytes"):
        export_tflite(
            padded_model, tmp_path / "b", mode="packed", samples=normalised(pictures),
            inputs="uint8",
            normalization=([m * scale / 200 for m in MEAN], [s / 200 for s in STD]),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_without_samples_bytes_are_made_up(padded_model, tmp_path):
    report = export_tflite(
        padded_model, tmp_path / "b", mode="packed", inputs="uint8",
        normalization=([127.5], [127.5]),
    )  # fmt: skip
    assert report.packed.regions


@pytest.mark.parametrize("move", ["reshape", "permute", "flat", "none"])
@pytest.mark.parametrize("normalization", [None, ([120.0], [60.0])])
def test_bytes_pass_ops_that_only_move_values(pictures, tmp_path, move, normalization):
    """As at the end of `keras.applications.MobileNet`, and in front of others."""
    keras.utils.set_random_seed(0)
    shape = {"reshape": (360,), "permute": (12, 10, 3), "flat": (120, 3)}.get(
        move, (10, 12, 3)
    )
    inputs = keras.Input(shape)
    x = {
        "reshape": layers.Reshape((10, 12, 3)),
        "permute": layers.Permute((2, 1, 3)),
        "flat": layers.Reshape((10, 12, 3)),
        "none": layers.Identity(),
    }[move](inputs)
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(5, 1)(x)
    x = layers.Reshape((5, 1))(layers.Flatten()(x))
    outputs = layers.Permute((2, 1))(x)
    raw = pictures.reshape(-1, *shape)
    mean, std = normalization or ([0.0], [1.0])
    samples = ((raw - np.float32(mean[0])) / np.float32(std[0])).astype(np.float32)
    model = quantized(inputs, outputs, samples)
    for name, ends in (("f", {}), ("b", {"inputs": "uint8", "outputs": "uint8"})):
        export_tflite(
            model, tmp_path / name, mode="packed", samples=samples, **ends,
            normalization=normalization,
        )  # fmt: skip
    interpreter = load_packed(tmp_path / "b")
    (source,), (target,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    assert source["dtype"] == target["dtype"] == np.uint8
    scale, zero = target["quantization"]
    exact = run(tmp_path / "f", samples)
    np.testing.assert_allclose(
        (run(tmp_path / "b", raw) - np.float32(zero)) * scale,
        exact,
        atol=2 * scale + 0.02 * np.abs(exact).max(),
    )


def test_channels_that_moved_cannot_be_normalised_each(pictures, tmp_path):
    inputs = keras.Input((3, 10, 12))
    x = layers.Permute((2, 3, 1))(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    samples = np.moveaxis(pictures, 3, 1).astype(np.float32)
    model = quantized(inputs, x, samples)
    twelve = ([float(i) for i in range(12)], [1.0] * 12)
    with pytest.raises(ValueError, match="one number for all channels"):
        export_tflite(
            model, tmp_path / "b", mode="packed", inputs="uint8", normalization=twelve
        )
