"""Training: augmentation, void labels, and going on where a run stopped."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from dqa_keras.models import mobilenet_v2, training, unet
from dqa_keras.models.training import (
    Recipe,
    shift_and_flip,
    shrunk,
    train,
    zoom_and_flip,
)
from dqa_keras.models.weights import save_weights


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_shift_and_flip_moves_by_four_pixels_at_most(random):
    images = np.zeros((64, 32, 32, 3), np.uint8)
    images[:, 10, 20] = 255
    moved, _ = shift_and_flip(images, np.arange(64), (32, 32), random)
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
    zoomed, labels = zoom_and_flip(images, mask, (18, 24), random)
    assert zoomed.shape == images.shape
    assert labels.shape == mask.shape
    assert not np.array_equal(labels, mask)
    for image, label in zip(zoomed, labels, strict=True):
        # One light an image: pixels of one class have one colour.
        for value in np.unique(label):
            assert len(np.unique(image[label == value], axis=0)) == 1


def test_shrunk_images_are_means_of_areas(random):
    images = random.integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)
    halves = images.reshape(3, 3, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(shrunk(images, (3, 4)), np.rint(halves))
    # Three pixels become two: each is one pixel and half of the middle one.
    row = np.uint8([30, 60, 90]).reshape(1, 1, 3, 1)
    assert shrunk(row, (1, 2)).ravel().tolist() == [40, 80]


def test_small_scenes_keep_pixels_and_mask_together(random):
    mask = np.repeat(np.repeat(random.integers(0, 12, (4, 3, 4)), 12, 1), 12, 2)
    images = np.repeat(mask[..., None] * 10, 3, -1).astype(np.uint8)
    small, labels = zoom_and_flip(images, mask, (18, 24), random)
    assert small.shape == (4, 18, 24, 3)
    assert labels.shape == (4, 18, 24)
    for image, label in zip(small, labels, strict=True):
        for value in np.unique(label):
            assert len(np.unique(image[label == value], axis=0)) == 1


def small_recipe(**changes):
    fields = {"epochs": 1, "batch": 4, "peak_rate": 1e-3, "weight_decay": 0.01}
    return Recipe(zoom_and_flip, **{**fields, **changes})


def test_void_pixels_do_not_train(tmp_path, random):
    images = random.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    everything_void = np.full((8, 16, 16), 11)
    recipe = small_recipe(weight_decay=0.0)
    keras.utils.set_random_seed(0)
    before = unet(filters=2, depth=1, image_size=(16, 16))
    keras.utils.set_random_seed(0)
    build = functools.partial(unet, filters=2, depth=1)
    after = train(build, recipe, images, everything_void, tmp_path)
    for old, new in zip(before.trainable_weights, after.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_learns(tmp_path, random):
    labels = random.integers(0, 2, (32, 16, 16))
    labels = np.repeat(np.repeat(labels[:, ::8, ::8], 8, 1), 8, 2)
    images = np.repeat(labels[..., None] * 200, 3, -1).astype(np.uint8)
    build = functools.partial(unet, filters=4, depth=1, classes=2)
    recipe = small_recipe(
        epochs=20,
        peak_rate=1e-2,
        balanced=True,
        scales=((0.5, 0.5), (0.5, 1.0)),
        precision="mixed_bfloat16",
    )
    model = train(build, recipe, images, labels, tmp_path)
    assert model.dtype_policy.name == "float32"
    assert model.input_shape == (None, 16, 16, 3)
    assert training.evaluate(model, images, labels) > 90


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path, random):
    images = random.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    labels = random.integers(0, 11, (8, 16, 16))
    build = functools.partial(unet, filters=2, depth=1)
    recipe = small_recipe(epochs=9, peak_rate=1e38)
    with pytest.raises(FloatingPointError, match=r"finite\. Received: nan in epoch \d"):
        train(build, recipe, images, labels, tmp_path)
    assert len((tmp_path / "log.csv").read_text().splitlines()) < 9


def test_a_run_goes_on_where_it_was_killed(tmp_path, random):
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = random.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
        arrays[f"y_{part}"] = random.integers(0, 12, (8, 16, 16))
    np.savez(tmp_path / "data.npz", **arrays)
    # The first run stops as a killed one does: between two epochs, without a word.
    program = (
        "import sys, os, keras, runpy\n"
        "keep = keras.callbacks.CSVLogger.on_epoch_end\n"
        "def stop(self, epoch, logs=None):\n"
        "    if epoch == 2: os._exit(9)\n"
        "    keep(self, epoch, logs)\n"
        "keras.callbacks.CSVLogger.on_epoch_end = stop\n"
        "runpy.run_module('dqa_keras.models.training', run_name='__main__')\n"
    )
    arguments = ["--model=unet", f"--data={tmp_path}/data.npz", "--epochs=3"]
    arguments += ["--precision=float32"]
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
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["epoch", "0", "1", "2"]
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
