"""Training: augmentation, void labels, and going on where a run stopped."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from dqa_keras.models import mobilenet_v2, training, unet
from dqa_keras.models.training import Recipe, shift_and_flip, train, zoom_and_flip
from dqa_keras.models.weights import save_weights


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_shift_and_flip_moves_by_four_pixels_at_most(random):
    images = np.zeros((64, 32, 32, 3), np.uint8)
    images[:, 10, 20] = 255
    moved, _ = shift_and_flip(images, np.arange(64), random)
    count, rows, columns = np.nonzero(moved[..., 0])
    assert count.tolist() == list(range(64))
    assert set(rows) <= set(range(6, 15))
    assert len(set(rows)) > 3
    near = {*range(16, 25)} | {31 - column for column in range(16, 25)}
    assert set(columns) <= near
    assert len(set(columns)) > 5


def test_zoom_and_flip_keeps_pixels_and_mask_together(random):
    mask = random.integers(0, 12, (8, 18, 24))
    images = np.repeat(mask[..., None] * 10, 3, -1).astype(np.uint8)
    zoomed, labels = zoom_and_flip(images, mask, random)
    assert zoomed.shape == images.shape
    assert labels.shape == mask.shape
    assert not np.array_equal(labels, mask)
    for image, label in zip(zoomed, labels, strict=True):
        # One exposure an image: pixels of one class have one value.
        for value in np.unique(label):
            assert len(np.unique(image[label == value])) == 1


def small_recipe(**changes):
    fields = {"epochs": 1, "batch": 4, "peak_rate": 1e-3, "weight_decay": 0.01}
    return Recipe(zoom_and_flip, **{**fields, **changes})


def test_void_pixels_do_not_train(tmp_path, random):
    images = random.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    everything_void = np.full((8, 16, 16), 11)
    model = unet(filters=2, depth=1, image_size=(16, 16))
    recipe = small_recipe(weight_decay=0.0)
    before = model.get_layer("scores").get_weights()
    train(model, recipe, images, everything_void, tmp_path)
    for old, new in zip(before, model.get_layer("scores").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_learns(tmp_path, random):
    labels = random.integers(0, 2, (32, 16, 16))
    labels = np.repeat(np.repeat(labels[:, ::8, ::8], 8, 1), 8, 2)
    images = np.repeat(labels[..., None] * 200, 3, -1).astype(np.uint8)
    model = unet(filters=4, depth=1, classes=2, image_size=(16, 16))
    recipe = small_recipe(epochs=20, peak_rate=1e-2, balanced=True)
    train(model, recipe, images, labels, tmp_path)
    assert training.evaluate(model, images, labels) > 90


def test_a_run_goes_on_where_it_was_killed(tmp_path, random):
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = random.integers(0, 256, (128, 32, 32, 3)).astype(np.uint8)
        arrays[f"y_{part}"] = random.integers(0, 10, 128)
    np.savez(tmp_path / "data.npz", **arrays)
    # The first run stops as a killed one does: between two epochs, without a word.
    program = (
        "import sys, os, keras, runpy\n"
        "keep = keras.callbacks.CSVLogger.on_epoch_end\n"
        "def stop(self, epoch, logs=None):\n"
        "    keep(self, epoch, logs)\n"
        "    if epoch == 1: os._exit(9)\n"
        "keras.callbacks.CSVLogger.on_epoch_end = stop\n"
        "runpy.run_module('dqa_keras.models.training', run_name='__main__')\n"
    )
    arguments = ["--model=resnet32", f"--data={tmp_path}/data.npz", "--epochs=3"]
    arguments += [f"--folder={tmp_path}/run", f"--output={tmp_path}/weights.npz"]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], check=False)
    assert killed.returncode == 9
    assert not (tmp_path / "weights.npz").exists()
    done = subprocess.run(
        [sys.executable, "-m", "dqa_keras.models.training", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Epoch 1/3" not in done.stdout
    assert "Epoch 3/3" in done.stdout
    assert (tmp_path / "weights.npz").stat().st_size > 0


def test_weights_come_back_in_half_precision(tmp_path):
    model = mobilenet_v2()
    save_weights(model, tmp_path / "w.npz")
    other = mobilenet_v2(tmp_path / "w.npz")
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        expected = np.asarray(ours, np.float16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(theirs), expected)
    assert os.path.getsize(tmp_path / "w.npz") < 5e6


def test_weights_of_another_model_are_refused(tmp_path):
    save_weights(unet(filters=2, depth=1), tmp_path / "w.npz")
    with pytest.raises(ValueError, match=r"lacks the variable 'stem/kernel'"):
        mobilenet_v2(tmp_path / "w.npz")
    with pytest.raises(ValueError, match=r"'down0_conv1/kernel' must have the shape"):
        unet(tmp_path / "w.npz", filters=4, depth=1)


def test_weights_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04 not whole")
    for name in ("w.npz", "missing.npz"):
        with pytest.raises(ValueError, match=f"cannot read the weights .*{name}"):
            mobilenet_v2(tmp_path / name)


def test_weights_beyond_half_precision_leave_no_file(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="wide")])
    model.get_layer("wide").set_weights([np.float32([[1e5]]), np.float32([0])])
    with pytest.raises(ValueError, match=r"at most 65504.*wide/kernel'"):
        save_weights(model, tmp_path / "w.npz")
    assert not list(tmp_path.iterdir())


def test_the_unet_gives_scores_for_every_pixel_of_an_odd_size():
    model = unet(filters=2, depth=2, image_size=(18, 23))
    scores = model(np.zeros((1, 18, 23, 3), np.float32))
    assert scores.shape == (1, 18, 23, 11)


def test_the_module_names_its_flags():
    done = subprocess.run(
        [sys.executable, "-m", "dqa_keras.models.training", "--model=unet"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode != 0
    assert "--data" in done.stderr
