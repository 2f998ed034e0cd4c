"""What commands read: models, data sets, and the workers of TF_CONFIG."""

import dataclasses
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
from absl import flags

from dqa_keras import datasets, models
from dqa_keras.cli.loading import load_keras

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


def load_data(values: flags.FlagValues, model: keras.Model) -> datasets.Splits:
    """The data set that the flags name, cut to the numbers they ask for."""
    if not isinstance(model.input_shape, tuple):
        raise ValueError("the dqa command handles models with one input; use Python")
    return open_data(values, model.input_shape)


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
        print(f"data: {splits.note}", flush=True)
    test = splits.test.take(values.limit) if values.limit else splits.test
    train = splits.train.take(values.calibration_images)
    return dataclasses.replace(splits, train=train, test=test)
