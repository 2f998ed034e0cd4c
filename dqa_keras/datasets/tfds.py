"""Images and labels of the datasets that TensorFlow Datasets (TFDS) prepares."""

import os
from typing import Any

import numpy as np

from dqa_keras.datasets.splits import Splits

# What TFDS datasets call an image and its label or mask.
_TFDS_KEYS = (
    ("image", "label"),
    ("image", "segmentation_mask"),
    ("image_left", "segmentation_label"),
)

_VOID = 255

# The 19 classes that Cityscapes evaluates, out of its label ids 0..33.
_CITYSCAPES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}


# What the parts are called, the first choice first. imagenet_sample has no images to
# train on.
_TRAINING = ("train", "calibration")
_TESTS = ("test", "validation", "val")

# Datasets whose test part has no labels.
_SECRET_TESTS = ("cityscapes", "imagenet2012")


def load(
    name: str,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
    image_size: tuple[int, int] | None,
) -> Splits:
    """A dataset by its TFDS name.

    Args:
        name: Name that `tensorflow_datasets.builder` knows.
        data_dir: Folder of prepared datasets, or `None` for TFDS' own.
        manual_dir: Folder of archives to prepare the dataset from, or `None`.
        image_size: Height and width to resize to, or `None`.

    Returns:
        A `Splits`.

    Raises:
        ValueError: If it is not prepared, or holds no images with labels or masks.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = data_dir or "~/tensorflow_datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if manual_dir is not None:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        parts = list(builder.info.splits)
        training, measuring, note = _choose(name, parts)
        train = builder.as_dataset(split=training)
        test = builder.as_dataset(split=measuring)
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"cannot open the TFDS dataset {name!r} under {folder}: "
            f"{first_line.rstrip('.')}. " + _way_out(name)
        ) from error

    features = builder.info.features
    keys = next((keys for keys in _TFDS_KEYS if set(keys) <= set(features)), None)
    if keys is None:
        raise ValueError(
            f"the TFDS dataset {name!r} must have images with labels or masks. "
            f"Received: {sorted(features)}"
        )
    classes = np.full(256, _VOID, np.int64)
    classes[list(_CITYSCAPES)] = np.arange(len(_CITYSCAPES))

    def typed(example: dict[str, Any]) -> tuple[Any, Any]:
        image, label = (example[key] for key in keys)
        image = tf.cast(image, tf.float32)
        if image_size is not None and image.shape[:2] != image_size:
            image = tf.image.resize(image, image_size, antialias=True)
            if label.shape.rank == 3:
                label = tf.image.resize(label, image_size, method="nearest")
        if label.shape.rank == 3:  # a mask (H, W, 1)
            label = label[..., 0]
        if name == "cityscapes":
            label = tf.gather(classes, tf.cast(label, tf.int32))
        return image, tf.cast(label, tf.int64)

    labels = features["label"].names if keys[1] == "label" else None
    if name == "cityscapes":
        labels = list(_CITYSCAPES.values())
    return Splits(train.map(typed), test.map(typed), labels, note)


def _choose(name: str, parts: list[str]) -> tuple[str, str, str]:
    """The parts to calibrate with and to measure on, and what there is to say."""
    tests = ("validation", "val") if name in _SECRET_TESTS else _TESTS
    training, measuring = (
        next((part for part in names if part in parts), "all")
        for names in (_TRAINING, tests)
    )
    if "all" in (training, measuring):
        note = (
            f"{name} has the parts {', '.join(parts)}: calibrated with {training}, "
            f"measured on {measuring}, so some images serve for both"
        )
    else:
        note = "" if measuring == "test" else f"measured on {measuring}"
    return training, measuring, note


def _way_out(name: str) -> str:
    if name == "cityscapes":
        return (
            "Fetch leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip with an "
            "account at www.cityscapes-dataset.com, and name their folder as "
            "--manual_dir (manual_dir in Python)."
        )
    return (
        f"Prepare it with tensorflow_datasets.load({name!r}), or name another "
        "--data_dir."
    )
