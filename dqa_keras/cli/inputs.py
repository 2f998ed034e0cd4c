"""What commands read: models, data sets, and the workers of TF_CONFIG."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
from absl import flags
from numpy.typing import NDArray

from dqa_keras import datasets, models
from dqa_keras.analysis.text import printable
from dqa_keras.cli.loading import load_keras
from dqa_keras.datasets.arrays import load_inputs

BUILT_IN: dict[str, Callable[..., keras.Model]] = {
    **{
        f"efficientnet_lite{variant}": partial(models.efficientnet_lite, variant)
        for variant in range(5)
    },
    "mobilenet_v2": models.mobilenet_v2,
    "resnet32": models.resnet32,
    "unet": models.unet,
}

WEIGHTS = "an .npz, or the data set that the package's are for (cifar10; unet: camvid)"

BATCH = 128


def load_model(values: flags.FlagValues) -> keras.Model:
    """The model that --model and --weights name."""
    return open_model(values.model, values.weights)


def open_model(name: str, weights: str | None) -> keras.Model:
    """A `.keras` file, or a built-in model with weights of its own."""
    if weights is not None and name not in BUILT_IN:
        raise ValueError(
            f"--weights is for the built-in models ({', '.join(BUILT_IN)}): a .keras "
            f"file has its own. Received: --weights {weights} for {name}"
        )
    if name in BUILT_IN:
        if weights is None:
            raise ValueError(f"--model {name} needs --weights: {WEIGHTS}")
        return BUILT_IN[name](weights)
    if not Path(name).is_file():
        raise ValueError(
            f"no such model: {name} is neither a file nor one of {', '.join(BUILT_IN)}"
        )
    return load_keras(name)


def workers_scope() -> Any:
    """The scope of the workers that TF_CONFIG names; before TensorFlow computes.

    Raises:
        ValueError: If TF_CONFIG is not set or names no workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        named = config["cluster"]["worker"][int(config["task"]["index"])]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            "--workers needs the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            '"task": {"type": "worker", "index": 0}}. '
            f"Received: {text or 'nothing'}"
        ) from error
    import tensorflow as tf

    print(f"worker {config['task']['index']} at {named} waits for the others")
    return tf.distribute.MultiWorkerMirroredStrategy().scope()


def check_model(model: keras.Model) -> None:
    """Raises ValueError unless a model has one input and one output with scores."""
    outputs = model.compute_output_shape(model.input_shape)
    if len(outputs) == 1 and isinstance(outputs, list | tuple):
        (outputs,) = outputs  # as Keras does when the model is called
    shapes = model.input_shape, outputs
    if not all(isinstance(s, tuple) and s and s[-1] is not None for s in shapes):
        raise ValueError(
            "the dqa command handles models with one input and one output, whose last "
            "axis is known; use Python for others. "
            f"Received: inputs {shapes[0]}, outputs {shapes[1]}"
        )


def load_data(values: flags.FlagValues, model: keras.Model) -> datasets.Splits:
    """The data set that the flags name, cut to the numbers they ask for."""
    check_model(model)
    splits = open_data(values, model.input_shape)
    labels = splits.test.element_spec[1].shape
    if labels.rank != len(model.output_shape) - 2:
        raise ValueError(
            "labels must be class numbers, one for each of the model's scores. "
            f"Received: outputs {model.output_shape}, labels "
            f"{(None, *labels)} in {values.data}"
        )
    return splits


def open_data(
    values: flags.FlagValues, shape: tuple[int | None, ...]
) -> datasets.Splits:
    """The same for inputs of a shape, batch axis included."""
    size = (shape[1], shape[2]) if len(shape) == 4 and shape[1] and shape[2] else None
    splits = datasets.load(
        values.data,
        data_dir=values.data_dir,
        manual_dir=values.manual_dir,
        image_size=size,
    )
    if splits.note:
        print(f"data: {printable(splits.note)}", flush=True)
    for part in (splits.train, splits.test):
        check_shape(values.data, part.element_spec[0].shape, shape)
    test = splits.test.take(values.limit) if values.limit else splits.test
    train = splits.train.take(values.calibration_images)
    return dataclasses.replace(splits, train=train, test=test)


def load_npy(flag: str, path: str) -> NDArray:
    """The array of the `.npy` file that a flag names.

    Raises:
        ValueError: If the file cannot be read, or holds no finite numbers.
    """
    try:
        return load_inputs(Path(path))
    except ValueError as error:
        raise ValueError(
            f"--{flag} must be an .npy file of numbers: {error}"
        ) from error


def check_shape(
    source: str, received: Sequence[int | None], shape: tuple[int | None, ...]
) -> None:
    """Raises ValueError unless images have the shape of a model's inputs.

    Args:
        source: What the images come from.
        received: Shape of one image.
        shape: Shape of the inputs, batch axis included.
    """
    pairs = zip(received, shape[1:], strict=False)
    if len(received) != len(shape) - 1 or any(
        size is not None and wanted is not None and size != wanted
        for size, wanted in pairs
    ):
        raise ValueError(
            f"the model takes inputs of shape {shape}. "
            f"Received: {(None, *received)} in {source}"
        )
