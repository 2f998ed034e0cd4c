r"""Trains a reference model, on any Keras backend.

    python -m dqa_keras.models.training --model unet --data camvid \
        --data_dir tfds --output unet_camvid.npz --folder build/train/unet

`--data` is a TFDS name or an `.npz` with x_train, y_train, x_test and y_test (uint8
images), which needs no TensorFlow. The run is seeded, and goes on where it stopped when
started again with the same `--folder`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags
from numpy.typing import NDArray

from dqa_keras import models
from dqa_keras.accuracy import Tally
from dqa_keras.models.weights import save_weights

_MODEL = flags.DEFINE_enum(
    "model", None, ["resnet32", "mobilenet_v2", "unet"], "What.", required=True
)
_DATA = flags.DEFINE_string("data", None, "A TFDS name or an .npz.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS keeps prepared datasets.")
_OUTPUT = flags.DEFINE_string("output", None, "Weight file (.npz).", required=True)
_FOLDER = flags.DEFINE_string("folder", None, "Where checkpoints go.", required=True)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Epochs; default: the recipe's.")
_SEED = flags.DEFINE_integer("seed", 0, "Seeds weights and augmentation.")

Images = NDArray[np.uint8]
Labels = NDArray[np.integer]
Augment = Callable[[Images, Labels, np.random.Generator], tuple[Images, Labels]]


def shift_and_flip(
    images: Images, labels: Labels, random: np.random.Generator
) -> tuple[Images, Labels]:
    """Moves 32x32 images by up to 4 pixels, mirrors half of them."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    rows = random.integers(0, 9, (count, 1)) + np.arange(height)
    columns = random.integers(0, 9, (count, 1)) + np.arange(width)
    columns = np.where(random.random((count, 1)) < 0.5, columns, columns[:, ::-1])
    index = np.arange(count)[:, None, None]
    return padded[index, rows[:, :, None], columns[:, None, :]], labels


def zoom_and_flip(
    images: Images, labels: Labels, random: np.random.Generator
) -> tuple[Images, Labels]:
    """Zooms scenes in by up to 1.67, mirrors half of them, changes the exposure."""
    count, height, width, _ = images.shape
    share = random.uniform(0.6, 1.0, (count, 1))

    def window(size: int) -> NDArray[np.int64]:
        start = random.random((count, 1)) * (1 - share)
        return ((start + share * (np.arange(size) + 0.5) / size) * size).astype(int)

    rows, columns = window(height), window(width)
    columns = np.where(random.random((count, 1)) < 0.5, columns, columns[:, ::-1])
    at = (np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
    gain = random.uniform(0.7, 1.3, (count, 1, 1, 1))
    exposed = np.clip(images[at] * gain, 0, 255).astype(np.uint8)
    return exposed, labels[at]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained: warm-up, then cosine decay, with weight decay.

    Args:
        augment: Function of images, labels and a random generator.
        epochs: Integer.
        batch: Integer. Images a step.
        peak_rate: Float. Largest learning rate.
        weight_decay: Float.
        balanced: Boolean. Whether rare classes weigh more (square root of the inverse
            frequency).
    """

    augment: Augment
    epochs: int
    batch: int
    peak_rate: float
    weight_decay: float
    balanced: bool = False


RECIPES = {
    "resnet32": Recipe(shift_and_flip, 200, 128, 4e-3, 0.02),
    "mobilenet_v2": Recipe(shift_and_flip, 100, 128, 4e-3, 0.02),
    "unet": Recipe(zoom_and_flip, 120, 8, 3e-3, 0.01, balanced=True),
}


class _Batches(keras.utils.PyDataset):
    """Augmented batches (images, labels, weights) in an order that the seed fixes."""

    def __init__(
        self, images: Images, labels: Labels, recipe: Recipe, classes: int, seed: int
    ) -> None:
        super().__init__()
        self._images, self._labels, self._recipe = images, labels, recipe
        self._seed = seed
        self.epoch = 0
        # Void labels weigh nothing; they are class 0 for the loss to have a class.
        frequency = np.bincount(labels.ravel(), minlength=classes)[:classes]
        weights = np.ones(max(classes, int(labels.max()) + 1), np.float32)
        if recipe.balanced:
            weights[:classes] = (frequency / frequency.sum() + 1e-3) ** -0.5
            weights[:classes] /= weights[:classes].mean()
        weights[classes:] = 0
        self._weights = weights

    def __len__(self) -> int:
        return len(self._images) // self._recipe.batch

    def __getitem__(self, step: int) -> tuple[Any, Any, Any]:
        order = np.random.default_rng((self._seed, self.epoch)).permutation(
            len(self._images)
        )
        chosen = order[step * self._recipe.batch :][: self._recipe.batch]
        random = np.random.default_rng((self._seed, self.epoch, step))
        images, labels = self._recipe.augment(
            self._images[chosen], self._labels[chosen], random
        )
        weights = self._weights[labels]
        known = np.where(weights > 0, labels, 0).astype(np.int32)
        return images.astype(np.float32), known, weights


def load_arrays(
    data: str, data_dir: str | None
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """The training and the test part of a data set: uint8 images, int32 labels."""
    if Path(data).suffix == ".npz":
        with np.load(data, allow_pickle=False) as arrays:
            x_train, y_train = arrays["x_train"], arrays["y_train"].astype(np.int32)
            return (x_train, y_train), (
                arrays["x_test"],
                arrays["y_test"].astype(np.int32),
            )
    from dqa_keras import datasets

    splits = datasets.load(data, data_dir=data_dir)

    def gathered(part: Any) -> tuple[Images, Labels]:
        images, labels = zip(*part.as_numpy_iterator(), strict=True)
        return np.stack(images).astype(np.uint8), np.stack(labels).astype(np.int32)

    return gathered(splits.train), gathered(splits.test)


def train(
    model: keras.Model,
    recipe: Recipe,
    images: Images,
    labels: Labels,
    folder: Path,
    seed: int = 0,
) -> None:
    """Trains a model in place.

    Args:
        model: Keras model that gives logits (N, ..., K).
        recipe: `Recipe`.
        images: Uint8 array (N, H, W, 3).
        labels: Integer array (N,) or (N, H, W); values from K on are void.
        folder: Where the checkpoint lies; a run that finds one goes on from it.
        seed: Integer. Seeds order and augmentation.
    """
    batches = _Batches(images, labels, recipe, model.output_shape[-1], seed)
    steps = len(batches) * recipe.epochs
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.peak_rate / 25,
        steps - steps // 10,
        alpha=1e-3,
        warmup_target=recipe.peak_rate,
        warmup_steps=steps // 10,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.fit(
        batches,
        epochs=recipe.epochs,
        verbose=2,
        callbacks=[
            keras.callbacks.BackupAndRestore(str(folder / "checkpoint")),
            keras.callbacks.CSVLogger(str(folder / "log.csv"), append=True),
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch)
            ),
        ],
    )


def evaluate(model: keras.Model, images: Images, labels: Labels) -> float:
    """Top-1 accuracy or mean IoU in percent."""
    tally = Tally(model.output_shape[-1])
    for start in range(0, len(images), 64):
        part = slice(start, start + 64)
        scores = model.predict_on_batch(images[part].astype(np.float32))
        tally.add(np.asarray(scores), labels[part])
    return tally.percent()


def main(arguments: list[str]) -> None:
    """Trains, evaluates on the test part, writes the weights."""
    if len(arguments) > 1:
        raise app.UsageError(f"unknown argument {arguments[1]!r}")
    keras.utils.set_random_seed(_SEED.value)
    recipe = RECIPES[_MODEL.value]
    if _EPOCHS.value:
        recipe = dataclasses.replace(recipe, epochs=_EPOCHS.value)
    (images, labels), test = load_arrays(_DATA.value, _DATA_DIR.value)
    model = getattr(models, _MODEL.value)()
    train(model, recipe, images, labels, Path(_FOLDER.value), _SEED.value)
    save_weights(model, _OUTPUT.value)
    print(f"{_MODEL.value} on {_DATA.value}: {evaluate(model, *test):.2f} %")


if __name__ == "__main__":
    app.run(main)
