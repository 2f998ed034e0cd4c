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

import dqa_keras as dqa
from dqa_keras import datasets, models
from dqa_keras.analysis.text import printable
from dqa_keras.cli.loading import load_keras
from dqa_keras.datasets.arrays import load_inputs
from dqa_keras.layers import quantizer_layers

BUILT_IN: dict[str, Callable[..., keras.Model]] = {
    **{
        f"efficientnet_lite{variant}": partial(models.efficientnet_lite, variant)
        for variant in range(5)
    },
    "efficientnet_mini": models.efficientnet_mini,
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
    if not model.built:
        raise ValueError(
            f"model {model.name!r} has no declared inputs: begin it with keras.Input, "
            "and save it again"
        )
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


def quantized(name: str, model: keras.Model, config: dqa.DQAConfig) -> keras.Model:
    """A model with quantizers.

    Args:
        name: What the user calls the model.
        model: Keras model without quantizers.
        config: `DQAConfig`.

    Raises:
        ValueError: If nothing in the model is quantized.
    """
    result = dqa.quantize_model(model, config)
    if not quantizer_layers(result):
        reasons = [f"{s.name}: {s.reason}" for s in dqa.skipped(result)]
        raise ValueError(
            f"{name} has no activation to quantize"
            + (f" ({'; '.join(reasons)})" if reasons else "")
        )
    return result


def load_data(values: flags.FlagValues, model: keras.Model) -> datasets.Splits:
    """The data set that the flags name, cut to the numbers they ask for."""
    check_model(model)
    return open_data(values, model.input_shape, model.output_shape)


def open_data(
    values: flags.FlagValues,
    shape: tuple[int | None, ...],
    outputs: tuple[int | None, ...],
) -> datasets.Splits:
    """The same for inputs and outputs of two shapes, batch axis included."""
    size = (shape[1], shape[2]) if len(shape) == 4 and shape[1] and shape[2] else None
    if size is None and Path(values.data).is_dir():
        raise ValueError(
            "images of a folder are resized to the model's inputs, which must have a "
            f"height and a width. Received: inputs {shape}. Give an .npz instead."
        )
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
    _check_labels(values.data, splits, outputs)
    test = splits.test.take(values.limit) if values.limit else splits.test
    train = splits.train.take(values.calibration_images)
    return dataclasses.replace(splits, train=train, test=test)


def _check_labels(
    source: str, splits: datasets.Splits, outputs: tuple[int | None, ...]
) -> None:
    """Raises ValueError unless a model's scores can be measured by labels."""
    labels = splits.test.element_spec[1].shape
    if labels.rank != len(outputs) - 2:
        raise ValueError(
            "labels must be class numbers, one for each of the model's scores. "
            f"Received: outputs {outputs}, labels {(None, *labels)} in {source}"
        )
    scores = outputs[-1]
    if labels.rank or scores is None:  # masks have void labels
        return
    if scores == 1:
        raise ValueError(
            "accuracy asks which of several scores is the largest. Received: outputs "
            f"{outputs}. Quantize and measure a model with one score in Python, or "
            "give dqa report an .npy of inputs without labels."
        )
    if splits.labels is not None and len(splits.labels) != scores:
        raise ValueError(
            f"there must be one label for each channel of the output: {scores}. "
            f"Received: {len(splits.labels)} labels in {source}"
        )
    if splits.classes is not None and splits.classes > scores:
        raise ValueError(
            f"labels must be in 0..{scores - 1}, as the model has {scores} outputs. "
            f"Received: {splits.classes - 1} in {source}"
        )


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
