r"""Trains a reference model, on any Keras backend.

    python -m dqa_keras.models.training --model unet --data camvid \
        --data_dir tfds --output unet_camvid.npz --folder build/train/unet

`--data` is a TFDS name or an `.npz` with x_train, y_train, x_test and y_test (uint8
images), which needs no TensorFlow. The run is seeded, and goes on where it stopped when
started again with the same `--folder`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags
from numpy.typing import NDArray

from dqa_keras import files, models
from dqa_keras.analysis.accuracy import Tally
from dqa_keras.backend.running import runs_on
from dqa_keras.models import torch_layers
from dqa_keras.models.weights import save_weights

_MODEL = flags.DEFINE_enum(
    "model",
    None,
    ["resnet32", "mobilenet_v2", "efficientnet_mini", "unet"],
    "What.",
    required=True,
)
_DATA = flags.DEFINE_string("data", None, "A TFDS name or an .npz.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS keeps prepared datasets.")
_OUTPUT = flags.DEFINE_string("output", None, "Weight file (.npz).", required=True)
_FOLDER = flags.DEFINE_string("folder", None, "Where checkpoints go.", required=True)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Epochs; default: the recipe's.")
_HELD_OUT = flags.DEFINE_integer(
    "held_out",
    0,
    "Training images to measure with instead of the test part, left out of training: "
    "for choosing a recipe.",
    lower_bound=0,
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "What the layers compute in; default: the recipe's.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seeds weights and augmentation.")

Images = NDArray[np.uint8]
Labels = NDArray[np.integer]
Size = tuple[int, int]
Augment = Callable[[Images, Labels, Size, np.random.Generator], tuple[Images, Labels]]


def shift_and_flip(
    images: Images, labels: Labels, size: Size, random: np.random.Generator
) -> tuple[Images, Labels]:
    """Moves small images by up to 4 pixels, mirrors half of them, then shrinks them."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    rows = random.integers(0, 9, (count, 1)) + np.arange(height)
    columns = random.integers(0, 9, (count, 1)) + np.arange(width)
    columns = np.where(random.random((count, 1)) < 0.5, columns, columns[:, ::-1])
    index = np.arange(count)[:, None, None]
    return shrunk(padded[index, rows[:, :, None], columns[:, None, :]], size), labels


def shrunk(images: Images, size: Size) -> Images:
    """Averages images (N, H, W, C) over the areas of `size` pixels."""
    if images.shape[1:3] == size:
        return images

    def areas(long: int, short: int) -> NDArray[np.float32]:
        edges = np.arange(short + 1) * long / short
        low, high = np.arange(long), np.arange(long) + 1
        overlap = np.minimum(high, edges[1:, None]) - np.maximum(low, edges[:-1, None])
        return (np.maximum(overlap, 0) * short / long).astype(np.float32)

    rows, columns = map(areas, images.shape[1:3], size)
    mean = np.einsum("nhwc,ih,jw->nijc", images, rows, columns, optimize=True)
    return np.rint(mean).astype(np.uint8)


def zoom_and_flip(
    images: Images, labels: Labels, size: Size, random: np.random.Generator
) -> tuple[Images, Labels]:
    """Cuts out windows of 0.4 to 1 of the sides, mirrors half, changes the light."""
    count, height, width, _ = images.shape
    share = random.uniform(0.4, 1.0, (count, 1))

    def window(long: int, pixels: int) -> NDArray[np.int64]:
        start = random.random((count, 1)) * (1 - share)
        middles = (np.arange(pixels) + 0.5) / pixels
        return ((start + share * middles) * long).astype(int)

    rows, columns = window(height, size[0]), window(width, size[1])
    columns = np.where(random.random((count, 1)) < 0.5, columns, columns[:, ::-1])
    at = (np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
    light = random.uniform(0.7, 1.3, (count, 1, 1, 1))
    light = light * random.uniform(0.9, 1.1, (count, 1, 1, 3))
    return np.clip(images[at] * light, 0, 255).astype(np.uint8), labels[at]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained: one cycle of warm-up and cosine decay (AdamW).

    Args:
        augment: Function of images, labels, (height, width) and a random generator.
        epochs: Integer.
        batch: Integer. Images a step.
        peak_rate: Float. Largest learning rate.
        weight_decay: Float.
        scales: Pairs of a share of the epochs and what the images' sides are multiplied
            with meanwhile: epochs on half of the sides cost a quarter. Defaults to
            `((1.0, 1.0),)`.
        balanced: Boolean. Whether rare classes weigh more (square root of the inverse
            frequency). Defaults to `False`.
        precision: A Keras dtype policy for training, like `"mixed_bfloat16"`; the
            weights stay float32. Defaults to `"float32"`.
    """

    augment: Augment
    epochs: int
    batch: int
    peak_rate: float
    weight_decay: float
    scales: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    balanced: bool = False
    precision: str = "float32"


RECIPES = {
    "resnet32": Recipe(shift_and_flip, 80, 128, 4e-3, 0.05, precision="mixed_bfloat16"),
    "mobilenet_v2": Recipe(
        shift_and_flip,
        12,
        128,
        4e-3,
        0.05,
        ((0.58, 0.5), (0.25, 0.75), (0.17, 1.0)),
        precision="mixed_bfloat16",
    ),
    "efficientnet_mini": Recipe(
        shift_and_flip,
        16,
        128,
        4e-3,
        0.05,
        ((0.6, 0.5), (0.4, 1.0)),
        precision="mixed_bfloat16",
    ),
    "unet": Recipe(
        zoom_and_flip,
        300,
        8,
        3e-3,
        0.05,
        balanced=True,
        precision="mixed_bfloat16",
    ),
}


class _Batches(keras.utils.PyDataset):
    """Augmented batches (images, labels, weights) in an order that the seed fixes."""

    def __init__(
        self,
        images: Images,
        labels: Labels,
        recipe: Recipe,
        classes: int,
        size: Size,
        seed: int,
    ) -> None:
        super().__init__()
        self._images, self._labels, self._recipe = images, labels, recipe
        self._size, self._seed = size, seed
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
            self._images[chosen], self._labels[chosen], self._size, random
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


class _Checkpoint(keras.callbacks.Callback):
    """Writes weights and optimizer state after every epoch, and reads them back."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def _variables(self, model: keras.Model) -> list[keras.Variable]:
        return [*model.variables, *model.optimizer.variables]

    def restore(self, model: keras.Model) -> int:
        """Fills a compiled model; returns how many epochs are done."""
        if not self._path.exists():
            return 0
        model.optimizer.build(model.trainable_variables)
        with np.load(self._path, allow_pickle=False) as arrays:
            for number, variable in enumerate(self._variables(model)):
                variable.assign(arrays[str(number)])
            return int(arrays["epochs"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None and not np.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss must be finite. Received: {logs['loss']} in epoch "
                f"{epoch + 1}. Try "
                "--precision float32 or a smaller peak_rate in the recipe."
            )
        values = {
            str(number): keras.ops.convert_to_numpy(variable)
            for number, variable in enumerate(self._variables(self.model))
        }
        with files.replacing(self._path) as temporary, open(temporary, "wb") as file:
            np.savez(file, epochs=epoch + 1, **values)


def train(
    build: Callable[..., keras.Model],
    recipe: Recipe,
    images: Images,
    labels: Labels,
    folder: Path,
    seed: int = 0,
) -> keras.Model:
    """Trains a model.

    Args:
        build: Function that takes `image_size` as a keyword and gives a Keras model
            of logits (N, ..., K) with as many weights for every size.
        recipe: `Recipe`.
        images: Uint8 array (N, H, W, 3).
        labels: Integer array (N,) or (N, H, W); values from K on are void.
        folder: Where the checkpoint lies; a run that finds one goes on from it.
        seed: Integer. Seeds order and augmentation.

    Returns:
        The trained model, in float32.

    Raises:
        FloatingPointError: If the loss is not finite after an epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = _Checkpoint(folder / "checkpoint.npz")
    height, width = images.shape[1:3]
    share = 0.0
    for part, scale in recipe.scales:
        share += part
        size = round(height * scale), round(width * scale)
        with _policy(recipe.precision):
            model = build(image_size=size)
        if runs_on("torch"):
            model = torch_layers.for_training(model)
        batches = _Batches(images, labels, recipe, model.output_shape[-1], size, seed)
        _compile(model, recipe, len(batches) * recipe.epochs)
        model.fit(
            batches,
            initial_epoch=checkpoint.restore(model),
            epochs=round(share * recipe.epochs),
            verbose=2,
            callbacks=[
                keras.callbacks.CSVLogger(str(folder / "log.csv"), append=True),
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=lambda epoch, logs, at=batches: setattr(
                        at, "epoch", epoch
                    )
                ),
                checkpoint,
            ],
        )
    trained = build(image_size=(height, width))
    trained.set_weights(model.get_weights())
    return trained


@contextmanager
def _policy(name: str) -> Iterator[None]:
    """Layers made inside compute with this policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _compile(model: keras.Model, recipe: Recipe, steps: int) -> None:
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
    if _PRECISION.value:
        recipe = dataclasses.replace(recipe, precision=_PRECISION.value)
    (images, labels), measured = load_arrays(_DATA.value, _DATA_DIR.value)
    if _HELD_OUT.value:
        kept = len(images) - _HELD_OUT.value
        measured = images[kept:], labels[kept:]
        images, labels = images[:kept], labels[:kept]
    build = getattr(models, _MODEL.value)
    model = train(build, recipe, images, labels, Path(_FOLDER.value), _SEED.value)
    save_weights(model, _OUTPUT.value)
    print(f"{_MODEL.value} on {_DATA.value}: {evaluate(model, *measured):.2f} %")


if __name__ == "__main__":
    app.run(main)
