"""Images in folders: one folder for each class, below `train/` and `test/` or not."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dqa_keras.datasets.splits import Splits

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")

# Names of parts in any case. Of those to measure on, the first that exists is taken.
_TRAINING = ("train", "training")
_MEASURING = ("test", "testing", "validation", "valid", "val")

# Where one part is missing, this share of the other one's images measures.
_EVERY = 5

_CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class _Images:
    """Paths of images and the numbers of their classes, in the order of the names."""

    paths: Sequence[str]
    labels: Sequence[int]


def load(path: Path, image_size: tuple[int, int] | None) -> Splits:
    """The images below a folder.

    Args:
        path: Path of the folder.
        image_size: Height and width to resize to.

    Returns:
        A `Splits`. Training images come in an order that only their names decide.

    Raises:
        ValueError: If no size is given, a class or all images are missing, or the parts
            hold different classes.
    """
    if image_size is None:
        raise ValueError(
            f"{path} is a folder of images: say image_size=(height, width)"
        )
    training, measuring, notes = _parts(path)
    folders = [folder for folder in (training, measuring) if folder] or [path]
    classes = _classes(folders)
    images = [_listed(folder, classes) for folder in folders]
    for folder, listed in zip(folders, images, strict=True):
        notes += _left_out(folder, classes, listed)
    if len(images) == 2:
        train, test = images
    elif training or measuring:
        train, test = _split_off(folders[0], images[0])
        notes.append(
            f"{path} has only the part {folders[0].name}/: every {_EVERY}th image of a "
            f"class, at least one, is measured ({len(test.paths)}), the others "
            f"calibrate ({len(train.paths)})"
        )
    else:
        (train,) = (test,) = images
        notes.append(f"{path} has no parts: all images calibrate and are measured")
    order = np.random.default_rng(0).permutation(len(train.paths))
    shuffled = _Images(
        [train.paths[i] for i in order], [train.labels[i] for i in order]
    )
    return Splits(
        _dataset(shuffled, image_size),
        _dataset(test, image_size),
        classes,
        "; ".join(notes),
    )


def _folders(path: Path) -> list[Path]:
    return sorted(
        folder
        for folder in path.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    )


def _parts(path: Path) -> tuple[Path | None, Path | None, list[str]]:
    """The folders to calibrate with and to measure on, and what is not used."""
    folders = _folders(path)
    named = [f for f in folders if f.name.casefold() in (*_TRAINING, *_MEASURING)]
    # A class may be called `train`: a part holds folders.
    parts = [folder for folder in named if _folders(folder)]
    if not parts and len(named) < len(folders):
        return None, None, []
    if named and not parts:
        raise ValueError(
            f"{path}: a part must hold one folder of images for each class. "
            f"Received: no folder in {_some(folder.name for folder in named)}"
        )
    others = [folder for folder in folders if folder not in named and _images(folder)]
    if others:
        raise ValueError(
            f"{path} must hold either parts or classes. Received: the part "
            f"{parts[0].name} beside {_some(folder.name for folder in others)}"
        )

    def first(names: Sequence[str]) -> Path | None:
        ranked = sorted(
            (names.index(folder.name.casefold()), folder)
            for folder in parts
            if folder.name.casefold() in names
        )
        return ranked[0][1] if ranked else None

    training, measuring = first(_TRAINING), first(_MEASURING)
    notes = []
    if training and measuring and measuring.name.casefold() != "test":
        notes.append(f"measured on {measuring}")
    for folder in named:
        if folder not in parts:
            notes.append(f"{folder} holds no folder for each class: not used")
        elif folder not in (training, measuring):
            notes.append(f"{folder} is not used")
    return training, measuring, notes


def _classes(folders: list[Path]) -> list[str]:
    """Class names, sorted: those of the first part, which number all parts' classes."""
    classes, *others = ([folder.name for folder in _folders(part)] for part in folders)
    for part, names in zip(folders[1:], others, strict=True):
        unknown = sorted(set(names) - set(classes))
        if unknown:
            raise ValueError(
                "the parts of a data set must hold the same classes, or their numbers "
                f"mean different things. Only in {part}: {_some(unknown)}. "
                f"{folders[0]} holds: {_some(classes)}"
            )
    return classes


def _listed(folder: Path, classes: list[str]) -> _Images:
    paths: list[str] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        images = _images(folder / name)
        paths += images
        labels += [number] * len(images)
    if not paths:
        raise ValueError(
            f"{folder} must hold one folder of images for each class "
            f"({', '.join(_SUFFIXES)}). Received: "
            f"{_some(classes) if classes else 'no folder'}, without images"
        )
    return _Images(paths, labels)


def _left_out(folder: Path, classes: list[str], images: _Images) -> list[str]:
    """What a part holds and does not give."""
    empty = [classes[i] for i in sorted(set(range(len(classes))) - set(images.labels))]
    notes = [f"{folder} has no images of {_some(empty)}"] if empty else []
    beside = sum(_is_image(name) for name in os.listdir(folder))
    if beside:
        notes.append(f"{folder}: {beside} images outside the classes are not used")
    others = [name for label in classes for name in _files(folder / label, _is_other)]
    if others:
        kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in others)
        notes.append(
            f"{folder}: {len(others)} files are not used, because they are none of "
            f"{', '.join(_SUFFIXES)}: "
            + _some(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        )
    return notes


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def _is_other(name: str) -> bool:
    """Whether a file is no image that can be read, and nothing of a file manager's."""
    hidden = name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")
    return not hidden and not _is_image(name)


def _images(folder: Path) -> list[str]:
    return _files(folder, _is_image)


def _files(folder: Path, is_wanted: Callable[[str], bool]) -> list[str]:
    """Paths of files of a folder and of those in it, sorted.

    Links to folders are followed, hidden folders are not: editors keep copies there.
    """
    paths = []
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if real in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        paths += [os.path.join(root, name) for name in names if is_wanted(name)]
    return sorted(paths)


def _split_off(folder: Path, images: _Images) -> tuple[_Images, _Images]:
    """Every fifth image of each class, at least one, second; all others first."""
    sizes = Counter(images.labels)
    seen: Counter[int] = Counter()
    parts: list[tuple[list[str], list[int]]] = [([], []), ([], [])]
    for path, label in zip(images.paths, images.labels, strict=True):
        seen[label] += 1
        is_last = seen[label] == sizes[label] < _EVERY
        measures = seen[label] > 1 and (is_last or seen[label] % _EVERY == 0)
        paths, labels = parts[measures]
        paths.append(path)
        labels.append(label)
    if not parts[1][0]:
        raise ValueError(
            f"{folder} is the only part, so a class must hold at least 2 images, one "
            "to measure on. Received: 1. Make the parts train/ and test/."
        )
    return _Images(*parts[0]), _Images(*parts[1])


def _dataset(images: _Images, image_size: tuple[int, int]) -> Any:
    import tensorflow as tf

    def read(path: Any) -> Any:
        name = os.fsdecode(path.numpy())
        try:
            image = tf.image.decode_image(
                tf.io.read_file(path), channels=_CHANNELS, expand_animations=False
            )
        except tf.errors.OpError as error:
            empty = os.path.isfile(name) and not os.path.getsize(name)
            reason = "the file is empty" if empty else _reason(error)
            raise ValueError(f"{name} is no image that can be read: {reason}") from None
        return tf.image.resize(image, image_size)

    def typed(path: Any, label: Any) -> tuple[Any, Any]:
        # Eager, so that an error can name the file.
        image = tf.py_function(read, [path], tf.float32)
        image.set_shape((*image_size, _CHANNELS))
        return image, label

    paths = [os.fsencode(path) for path in images.paths]
    labels = np.array(images.labels, np.int64)
    files = tf.data.Dataset.from_tensor_slices((paths, labels))
    return files.map(typed, num_parallel_calls=tf.data.AUTOTUNE)


def _reason(error: Any) -> str:
    """TensorFlow's words, without the names of its nodes around them."""
    line = error.message.splitlines()[0]
    return re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", line)


def _some(names: Any) -> str:
    """The first of some names, for a message."""
    names = list(names)
    few = ", ".join(names[:5])
    return few + (f" and {len(names) - 5} more" if len(names) > 5 else "")
