"""What several commands share: flags, models, accuracy."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags
from tqdm import tqdm

from dqa_keras import datasets, files, models
from dqa_keras.analysis.accuracy import Tally
from dqa_keras.cli.loading import load_keras
from dqa_keras.config import DQAConfig, Method
from dqa_keras.export import ExportReport
from dqa_keras.export.litert.interpreter import Runner


class ShortfallError(Exception):
    """A figure or check fell short: exit code 1."""


METHODS: tuple[Method, ...] = ("direct", "noisyquant", "dqa")
PRESETS = ("default", "paper")

_BUILT_IN: dict[str, Callable[..., keras.Model]] = {
    "mobilenet_v2": models.mobilenet_v2,
    "resnet32": models.resnet32,
    "unet": models.unet,
}

_WEIGHTS = "an .npz, or the data set that the package's are for (cifar10; unet: camvid)"

BATCH = 128


def define_model_flags(values: flags.FlagValues) -> None:
    """Flags that name a model and a data set."""
    flags.DEFINE_string(
        "model",
        None,
        f"A .keras file with a trained model, or one of: {', '.join(_BUILT_IN)}.",
        flag_values=values,
        required=True,
    )
    define_data_flags(values)


def define_data_flags(values: flags.FlagValues) -> None:
    """Flags that name a data set, and weights for a built-in model."""
    flags.DEFINE_string(
        "weights",
        None,
        f"Weights of a built-in model: {_WEIGHTS}.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data",
        None,
        "A TFDS name, a folder of images by class, or an .npz.",
        flag_values=values,
        required=True,
    )
    flags.DEFINE_string(
        "data_dir", None, "Where TFDS keeps prepared datasets.", flag_values=values
    )
    flags.DEFINE_string(
        "manual_dir",
        None,
        "Folder of archives fetched by hand (Cityscapes), to prepare --data from.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "calibration_images",
        1000,
        "Training images to calibrate with.",
        flag_values=values,
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "limit",
        0,
        "Test images to measure with; 0 takes all.",
        flag_values=values,
        lower_bound=0,
    )


def define_config_flags(values: flags.FlagValues) -> None:
    """Flags that make up a `DQAConfig`; unset ones keep the preset's value."""
    flags.DEFINE_enum(
        "preset",
        "default",
        PRESETS,
        "default: the best we have without training. paper: as in the DQA paper.",
        flag_values=values,
    )
    flags.DEFINE_enum("method", "dqa", METHODS, "Quantizer.", flag_values=values)
    for name, text in (
        ("bits", "Stored bits of each activation, 1..8."),
        ("extra_bits", "Extra bits of important channels, 0..4."),
    ):
        flags.DEFINE_integer(name, None, text, flag_values=values)
    flags.DEFINE_float(
        "important_fraction",
        None,
        "Share of channels that get extra bits, 0..1.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "ranking",
        None,
        ("auto", "mse", "greedy", "fisher", "output"),
        "How channels are ranked.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "entropy",
        None,
        ("residual", "all"),
        "What is stored in Huffman code: residuals, or base codes too.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "budget_bits",
        None,
        "Stored bits per activation that the whole model may take; decides n and m.",
        flag_values=values,
    )


def define_tflite_flags(values: flags.FlagValues) -> None:
    """Flags of commands that write a `.tflite`."""
    flags.DEFINE_enum(
        "tflite_weights",
        "float32",
        ("float32", "float16", "int8"),
        "How the .tflite stores weights.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mode",
        "builtin",
        ("builtin", "packed"),
        "builtin runs everywhere; packed stores activations in few bits while it runs.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "strict",
        False,
        "Fail if a packed export leaves an op outside.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "skips",
        "raw",
        ("raw", "coded"),
        "coded: a packed model Huffman-codes activations that wait for later layers, "
        "where that saves memory; it takes time.",
        flag_values=values,
    )


def config_from(values: flags.FlagValues) -> DQAConfig:
    """The config that the flags describe."""
    names = (
        "method",
        "bits",
        "extra_bits",
        "important_fraction",
        "ranking",
        "entropy",
        "budget_bits",
    )
    given = {name: values[name].value for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    return preset(values.preset, **changes)


def preset(name: str, **changes: Any) -> DQAConfig:
    """The config of one of `PRESETS`, with some fields changed."""
    return DQAConfig.paper(**changes) if name == "paper" else DQAConfig(**changes)


def load_model(values: flags.FlagValues) -> keras.Model:
    """The model that --model and --weights name."""
    return open_model(values.model, values.weights)


def open_model(name: str, weights: str | None) -> keras.Model:
    """A `.keras` file, or a built-in model with weights of its own."""
    if name in _BUILT_IN:
        if weights is None:
            raise ValueError(f"--model {name} needs --weights: {_WEIGHTS}")
        return _BUILT_IN[name](weights)
    if not Path(name).is_file():
        raise ValueError(
            f"no such model: {name} is neither a file nor one of {', '.join(_BUILT_IN)}"
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
    test = splits.test.take(values.limit) if values.limit else splits.test
    return datasets.Splits(
        splits.train.take(values.calibration_images), test, splits.labels
    )


def _progress(data: Any, title: str, unit: str) -> Any:
    return tqdm(data, desc=title, unit=unit, leave=False, disable=None)


def accuracy(model: keras.Model, data: Any, batch: int = BATCH) -> float:
    """Accuracy of a Keras model on unbatched (image, label) data, in percent.

    Top-1, or mean IoU where labels are masks.
    """
    tally = Tally(model.output_shape[-1])
    for x, y in _progress(data.batch(batch), "accuracy", "batch"):
        tally.add(np.asarray(model.predict_on_batch(x)), y.numpy())
    return tally.percent()


def tflite_accuracy(
    path: str | Path, data: Any, delegates: Sequence[Any] = ()
) -> float:
    """The same of a `.tflite` in LiteRT, with the delegates that it needs."""
    run = Runner(Path(path).read_bytes(), delegates=delegates)
    tally: Tally | None = None
    for x, y in _progress(data.batch(1), "LiteRT", "image"):
        (scores,) = run(x)
        tally = tally or Tally(scores.shape[-1])
        tally.add(scores, y.numpy())
    return tally.percent() if tally else 0.0


def no_arguments(arguments: list[str]) -> None:
    """Raises ValueError if there are arguments that are no flags."""
    if arguments:
        raise ValueError(f"everything is a --flag here. Received: {arguments[0]!r}")


def check_writable(path: Path) -> None:
    """Raises ValueError at once, not after an hour, if a file cannot be written."""
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: no such folder {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write {path}: permission denied or a folder")


def save_keras(model: keras.Model, path: Path) -> None:
    """Writes a `.keras` file whole or not at all."""
    with files.replacing(path) as temporary:
        # Keras goes by the suffix; the temporary file has none.
        named = temporary.with_name(temporary.name + ".keras")
        try:
            model.save(named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


@contextmanager
def scratch_file(suffix: str) -> Iterator[Path]:
    """A file name that is gone with the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / f"scratch{suffix}"


def _packed_lines(report: ExportReport) -> str:
    if report.packed is None:
        return ""
    lines = [
        f"packed region: {region.nodes} operations, {region.quantizers} quantizers, "
        f"{region.arena / 1024:.0f} KiB of memory, "
        f"{region.constants / 1024:.0f} KiB of weights"
        for region in report.packed.regions
    ]
    lines += [f"outside: {name}: {why}" for name, why in report.packed.outside.items()]
    return "".join(line + "\n" for line in lines)


def describe_export(report: ExportReport) -> str:
    """What was written and checked, for the screen."""
    return _packed_lines(report) + (
        f"wrote {report.path}: {report.size / 1024:.0f} KiB, {report.quantizers} "
        "quantizers agree with Keras to the bit on the same input\n"
        f"largest difference at the output: {report.max_difference:.3g} "
        f"(outputs reach {report.output_range:.3g})"
    )
