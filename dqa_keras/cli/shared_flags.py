"""Flags that several commands share, and the config that they describe."""

from pathlib import Path
from typing import Any, get_args

from absl import flags

from dqa_keras.cli.inputs import BUILT_IN, WEIGHTS
from dqa_keras.config import CHOICES, DQAConfig, Method
from dqa_keras.export.options import Options

# In the order of reports: the baselines first.
METHODS: tuple[Method, ...] = (*get_args(Method)[1:], "dqa")
PRESETS = ("default", "paper")

# Flags that make up a config.
CONFIG = (
    "preset",
    "method",
    "bits",
    "extra_bits",
    "important_fraction",
    "ranking",
    "entropy",
    "budget_bits",
)

# tf.data counts in 64 bits.
_MOST_IMAGES = 2**63 - 1


def define_model_flags(values: flags.FlagValues) -> None:
    """Flags that name a model and a data set."""
    flags.DEFINE_string(
        "model",
        None,
        f"A .keras file with a trained model, or one of: {', '.join(BUILT_IN)}.",
        flag_values=values,
        required=True,
    )
    define_data_flags(values)


def define_data_flags(values: flags.FlagValues) -> None:
    """Flags that name a data set, and weights for a built-in model."""
    flags.DEFINE_string(
        "weights",
        None,
        f"Weights of a built-in model: {WEIGHTS}.",
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
        upper_bound=_MOST_IMAGES,
    )
    flags.DEFINE_integer(
        "limit",
        0,
        "Test images to measure with; 0 takes all.",
        flag_values=values,
        lower_bound=0,
        upper_bound=_MOST_IMAGES,
    )


def define_config_flags(values: flags.FlagValues) -> None:
    """Flags that make up a `DQAConfig`; unset ones keep the preset's value."""
    flags.DEFINE_enum(
        "preset",
        "default",
        PRESETS,
        "default: the same bits in all layers. paper: as in the DQA paper.",
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
        CHOICES["ranking"],
        "How channels are ranked.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "entropy",
        None,
        CHOICES["entropy"],
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
    flags.DEFINE_float(
        "arena_kib",
        None,
        "KiB that a packed model may take besides input and output: it runs as fast as "
        "they allow.",
        flag_values=values,
    )
    for name, text in (("mean", "Mean"), ("std", "Standard deviation")):
        flags.DEFINE_list(
            name,
            None,
            f"{text} that an app must normalise inputs with: one number, or one for "
            "each channel. Written into the file for it.",
            flag_values=values,
        )


def check_tflite_flags(values: flags.FlagValues, output: Path | None) -> None:
    """Raises ValueError if flags of a `.tflite` do not go together.

    Args:
        values: Values of the flags.
        output: Path of the file to write, or `None` for a folder with a `.tflite`.
    """
    changed = [
        name
        for name in (
            "mode",
            "strict",
            "skips",
            "arena_kib",
            "tflite_weights",
            "mean",
            "std",
        )
        if values[name].value != values[name].default
    ]
    if changed and output and output.suffix == ".keras":
        raise ValueError(
            f"--{', --'.join(changed)} say how a .tflite is written. "
            f"Received: --output {output}"
        )
    Options(
        mode=values.mode,
        strict=values.strict,
        inputs="float32",
        outputs="float32",
        skips=values.skips,
        weights=values.tflite_weights,
        arena_kib=values.arena_kib,
    ).check(None)


def normalization_from(
    values: flags.FlagValues,
) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation that the flags give, or `None`."""
    if (values.mean is None) != (values.std is None):
        raise ValueError(
            "--mean and --std go together. "
            f"Received: only --{'std' if values.mean is None else 'mean'}"
        )
    if values.mean is None:
        return None
    try:
        return [*map(float, values.mean)], [*map(float, values.std)]
    except ValueError as error:
        raise ValueError(
            "--mean and --std must be numbers with commas between them. "
            f"Received: {','.join(values.mean)} and {','.join(values.std)}"
        ) from error


def config_from(values: flags.FlagValues) -> DQAConfig:
    """The config that the flags describe."""
    settings = {name: values[name].value for name in CONFIG[1:]}
    changes = {name: value for name, value in settings.items() if value is not None}
    return preset(values.preset, **changes)


def preset(name: str, **changes: Any) -> DQAConfig:
    """The config of one of `PRESETS`, with some fields changed."""
    return DQAConfig.paper(**changes) if name == "paper" else DQAConfig(**changes)


def no_arguments(arguments: list[str]) -> None:
    """Raises ValueError if there are arguments that are no flags."""
    if arguments:
        raise ValueError(f"everything is a --flag here. Received: {arguments[0]!r}")
