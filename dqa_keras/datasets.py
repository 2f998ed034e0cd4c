"""Images and labels from wherever they lie, as `tf.data`.

A source is the name of a TFDS dataset (`cifar10`, `camvid`, `cityscapes`,
`imagenet_sample`), a folder of images by class (with `train/` and `test/` inside, or
without), or an `.npz` file with `x` and `y` or `x_train`, `y_train`, `x_test` and
`y_test`. A TFDS dataset of one's own is prepared by its `GeneratorBasedBuilder`, and
calibrates on the split `train` or else `calibration`.

Cityscapes may not be passed on: fetch it with an account of your own, and name the
folder of its archives as `manual_dir`. TFDS prepares it once, under `data_dir`.
"""

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

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


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set of images with labels.

    Args:
        train: `tf.data.Dataset` of (image, label), unbatched; images are float32
            (H, W, C), labels int64, () or (H, W). For calibration.
        test: The same, for measuring accuracy. Cityscapes' is its validation split, as
            the labels of its test split are secret.
        labels: Class labels, or `None` if the source does not name them.
    """

    train: Any
    test: Any
    labels: list[str] | None


def load(
    source: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    image_size: tuple[int, int] | None = None,
) -> Splits:
    """Opens a data set; images are read as they are needed.

    Args:
        source: Name of a TFDS dataset, a folder of images by class, or an `.npz`.
        data_dir: Where TFDS keeps its prepared datasets. Nothing is downloaded.
        manual_dir: Folder of the archives of a TFDS dataset that has to be fetched by
            hand, to prepare it from.
        image_size: Height and width to resize the images of a folder or of a TFDS
            dataset to; masks take the nearest pixel.

    Returns:
        A `Splits`. A source without a test part uses all of it for both.

    Raises:
        ValueError: If the source cannot be found or holds no images with labels.

    Example:
    >>> import numpy as np, tempfile
    >>> from dqa_keras import datasets
    >>> path = tempfile.mkdtemp() + "/digits.npz"
    >>> np.savez(path, x=np.zeros((10, 8, 8, 1)), y=np.arange(10))
    >>> splits = datasets.load(path)
    >>> int(splits.test.cardinality()), splits.test.element_spec[0].shape
    (10, TensorShape([8, 8, 1]))
    """
    path = Path(source)
    if path.suffix == ".npz":
        return _npz(path)
    if path.is_dir():
        return _folder(path, image_size)
    if path.suffix or os.sep in str(source):
        raise ValueError(f"no such data set: {source} is neither a folder nor an .npz")
    return _tfds(str(source), data_dir, manual_dir, image_size)


def _npz(path: Path) -> Splits:
    import tensorflow as tf

    if path.exists() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz, as numpy.savez writes it")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not an .npz of plain arrays: {error}") from error

    def split(part: str) -> Any:
        names = [f"x_{part}", f"y_{part}"]
        names = names if set(names) <= set(arrays) else ["x", "y"]
        if not set(names) <= set(arrays):
            raise ValueError(
                f"{path} must hold x and y, or x_train, y_train, x_test and y_test. "
                f"Received: {sorted(arrays)}"
            )
        x, y = (arrays[name] for name in names)
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(
                f"{path}: {names[0]} and {names[1]} must have the same length, at "
                f"least 1. Received: {len(x)} and {len(y)}"
            )
        if x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: {names[0]} and {names[1]} must hold numbers. "
                f"Received: {x.dtype} and {y.dtype}"
            )
        if y.size != len(y):
            raise ValueError(
                f"{path}: {names[1]} must hold one class number for each image. "
                f"Received: shape={y.shape}. Of one-hot labels save y.argmax(-1)."
            )
        return tf.data.Dataset.from_tensor_slices(
            (x.astype(np.float32), y.reshape(len(y)).astype(np.int64))
        )

    return Splits(split("train"), split("test"), None)


def _folder(path: Path, image_size: tuple[int, int] | None) -> Splits:
    import keras
    import tensorflow as tf

    if image_size is None:
        raise ValueError(
            f"{path} is a folder of images: say image_size=(height, width)"
        )

    def split(part: str) -> Any:
        folder = path / part if (path / part).is_dir() else path
        images = keras.utils.image_dataset_from_directory(
            folder,
            image_size=image_size,
            batch_size=None,
            shuffle=part == "train",
            seed=0,
            verbose=False,
        )
        names.append(images.class_names)
        return images.map(lambda x, y: (tf.cast(x, tf.float32), tf.cast(y, tf.int64)))

    names: list[list[str]] = []
    try:
        train, test = split("train"), split("test")
    except ValueError as error:
        raise ValueError(
            f"{path} must hold one folder of images for each class: {error}"
        ) from error
    return Splits(train, test, names[1])


def _tfds(
    name: str,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None,
    image_size: tuple[int, int] | None,
) -> Splits:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    found = data_dir or "~/tensorflow_datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if manual_dir is not None:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        parts = set(builder.info.splits)
        names = (
            ("train", "calibration"),  # imagenet_sample has no images to train on
            ("validation",) if name == "cityscapes" else ("test",),
        )
        train, test = (
            builder.as_dataset(split=next(filter(parts.__contains__, some), "all"))
            for some in names
        )
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"cannot open the TFDS dataset {name!r} under {found}: {first_line}. "
            + _way_out(name)
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
    return Splits(train.map(typed), test.map(typed), labels)


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
