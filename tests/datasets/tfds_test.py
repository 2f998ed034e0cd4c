"""Data that TFDS has prepared: real files."""

import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from dqa_keras import datasets


class Stripes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes a prepared dataset; TFDS must read it back from its files alone."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(names=["across", "down"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for index in range(count):
            image = np.zeros((4, 4, 3), np.uint8)
            image[index % 4] = 200
            yield index, {"image": image, "label": index % 2}


def test_tfds(tmp_path):
    Stripes(data_dir=tmp_path).download_and_prepare()
    splits = datasets.load("stripes", data_dir=tmp_path)
    assert (int(splits.train.cardinality()), int(splits.test.cardinality())) == (6, 4)
    assert splits.labels == ["across", "down"]
    image, label = next(iter(splits.test))
    assert image.dtype == "float32"
    assert float(np.max(image)) == 200.0
    assert label.dtype == "int64"


class Scenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images with masks, called as CamVid's are."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 6, 3)),
            "segmentation_mask": tfds.features.Image(shape=(4, 6, 1)),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        mask = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
        yield 0, {"image": np.repeat(mask, 3, -1), "segmentation_mask": mask}


def test_tfds_masks(tmp_path):
    Scenes(data_dir=tmp_path).download_and_prepare()
    splits = datasets.load("scenes", data_dir=tmp_path)
    image, mask = next(iter(splits.test))
    assert splits.labels is None
    assert (mask.dtype, mask.shape) == ("int64", (4, 6))
    np.testing.assert_array_equal(image[..., 0], mask)


def test_an_unknown_tfds_name_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"cannot open .*'stripez'.*--data_dir"):
        datasets.load("stripez", data_dir=tmp_path)


def write_cityscapes(folder):
    """Archives of the real layout and size, a scene a part: stripes of every label."""
    label_ids = np.broadcast_to(np.arange(2048) // 60, (1024, 2048)).astype(np.uint8)
    scene = np.repeat(label_ids[..., None] * 7, 3, -1)
    names = {"leftImg8bit": scene, "gtFine_labelIds": label_ids[..., None]}
    pictures = {
        name: tf.io.encode_png(pixels, compression=1).numpy()
        for name, pixels in names.items()
    }
    for root in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(folder / f"{root}_trainvaltest.zip", "w") as archive:
            for part, city in (("train", "ulm"), ("val", "bonn"), ("test", "mainz")):
                for name, picture in pictures.items():
                    if name.startswith(root):
                        path = f"{root}/{part}/{city}/{city}_000001_000019_{name}.png"
                        archive.writestr(path, picture)
    return label_ids


def test_cityscapes_from_its_archives(tmp_path):
    (tmp_path / "manual").mkdir()
    label_ids = write_cityscapes(tmp_path / "manual")
    folders = {"data_dir": tmp_path / "tfds", "manual_dir": tmp_path / "manual"}
    splits = datasets.load("cityscapes", **folders)
    assert len(splits.labels) == 19
    image, mask = next(iter(splits.test))
    np.testing.assert_array_equal(image[..., 0], label_ids * 7.0)
    for label_id, train_id in ((7, 0), (26, 13), (33, 18), (0, 255), (29, 255)):
        assert set(mask.numpy()[label_ids == label_id]) == {train_id}
    # Prepared once, the archives are not needed again.
    shutil.rmtree(tmp_path / "manual")
    splits = datasets.load(
        "cityscapes", data_dir=tmp_path / "tfds", image_size=(180, 240)
    )
    image, mask = next(iter(splits.train))
    assert (image.shape, mask.shape) == ((180, 240, 3), (180, 240))
    assert set(mask.numpy().ravel()) <= {*range(19), 255}


@pytest.mark.parametrize("manual", [False, True])
def test_without_cityscapes_the_error_says_where_to_get_it(tmp_path, manual):
    (tmp_path / "empty").mkdir()
    folders = {"manual_dir": tmp_path / "empty"} if manual else {}
    with pytest.raises(ValueError, match=r"gtFine_trainvaltest.zip.*--manual_dir"):
        datasets.load("cityscapes", data_dir=tmp_path / "tfds", **folders)


class Sample(Stripes, skip_registration=True):
    """As imagenet_sample: images to calibrate on, none to train on."""

    def _split_generators(self, manager):
        counts = {"calibration": 6, "test": 4}
        return {part: self._generate_examples(n) for part, n in counts.items()}


def test_tfds_calibrates_on_the_split_that_is_for_it(tmp_path):
    Sample(data_dir=tmp_path).download_and_prepare()
    splits = datasets.load("sample", data_dir=tmp_path)
    assert (int(splits.train.cardinality()), int(splits.test.cardinality())) == (6, 4)
