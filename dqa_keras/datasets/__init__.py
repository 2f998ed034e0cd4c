"""Images and labels from wherever they lie, as `tf.data`.

A source is the name of a TFDS dataset (`cifar10`, `camvid`, `cityscapes`,
`imagenet_sample`), an `.npz` file with `x` and `y` or `x_train`, `y_train`, `x_test`
and `y_test`, or a folder of images by class: `cat/`, `dog/`, or `train/cat/`,
`train/dog/`, `val/cat/`, `val/dog/`. A TFDS dataset of one's own is prepared by its
`GeneratorBasedBuilder`, and calibrates on the split `train` or else `calibration`.

Cityscapes may not be passed on: fetch it with an account of your own, and name the
folder of its archives as `manual_dir`. TFDS prepares it once, under `data_dir`.
"""

import os
from pathlib import Path

from dqa_keras.datasets import arrays, image_folder, tfds
from dqa_keras.datasets.splits import Splits

__all__ = ["Splits", "load"]


def load(
    source: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    image_size: tuple[int, int] | None = None,
) -> Splits:
    """Opens a data set; images are read as they are needed.

    In a folder of images, the part `train/` calibrates, and `test/` measures, or
    `validation/` or `val/` where there is no `test/`. The classes of `train/` are
    numbered in the order of their names, and the other part has no class that
    `train/` lacks. Where one of the two is missing, every fifth image of each class of
    the other measures, and the rest calibrates. `note` of the result says so.

    Args:
        source: Name of a TFDS dataset, a folder of images by class, or an `.npz`.
        data_dir: Where TFDS keeps its prepared datasets. Nothing is downloaded.
        manual_dir: Folder with the archives of a TFDS dataset that must be fetched by
            hand. TFDS prepares the dataset from them.
        image_size: Height and width to resize the images of a folder or of a TFDS
            dataset to; masks take the nearest pixel.

    Returns:
        A `Splits`. A source without parts uses all of it for both.

    Raises:
        ValueError: If the source cannot be found, holds no images with labels, or its
            measuring part holds a class that the training part lacks.

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
    if not str(source):
        raise ValueError("a data set must have a name or a path. Received: nothing")
    if path.suffix == ".npz":
        return arrays.load(path)
    if path.is_dir():
        return image_folder.load(path, image_size)
    if path.suffix or os.sep in str(source):
        raise ValueError(
            f"no such data set: {str(source)!r} is neither a folder nor an .npz"
        )
    return tfds.load(str(source), data_dir, manual_dir, image_size)
