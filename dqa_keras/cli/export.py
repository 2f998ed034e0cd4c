"""Exports a calibrated .keras file to .tflite and checks it.

Example:
  dqa quantize --model m.keras --data digits.npz --bits 4 --output quantized.keras
  dqa export --model quantized.keras --output m.tflite
  dqa export --model quantized.keras --output m.tflite --mode packed
  dqa export --model quantized.keras --android out --package com.example.app
"""

from typing import Any

import numpy as np
from absl import flags

from dqa_keras.cli import outputs, shared_flags
from dqa_keras.cli.loading import load_keras
from dqa_keras.export import export_android, export_tflite


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    flags.DEFINE_string(
        "model", None, "A calibrated .keras file.", flag_values=values, required=True
    )
    flags.DEFINE_string("output", None, "The .tflite to write.", flag_values=values)
    flags.DEFINE_string(
        "android",
        None,
        "Instead: a folder for the .tflite with what an Android app needs to run it.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "package",
        "com.example.app",
        "Package of the Kotlin class in the --android folder.",
        flag_values=values,
    )
    shared_flags.define_tflite_flags(values)
    flags.DEFINE_string(
        "samples",
        None,
        "An .npy file with a batch of real inputs, to set ranges and check with.",
        flag_values=values,
    )
    flags.DEFINE_list("labels", None, "Class labels.", flag_values=values)


def _samples(path: str | None) -> Any:
    if path is None:
        return None
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"--samples must be an .npy file: {error}") from error


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    shared_flags.no_arguments(arguments)
    if (values.output is None) == (values.android is None):
        raise ValueError("give either --output FILE.tflite or --android FOLDER")
    model = load_keras(values.model)
    options = {
        "mode": values.mode,
        "strict": values.strict,
        "skips": values.skips,
        "samples": _samples(values.samples),
        "weights": values.tflite_weights,
        "labels": values.labels,
    }
    if values.android is None:
        report = export_tflite(model, values.output, **options)
    else:
        report = export_android(
            model, values.android, package=values.package, **options
        )
    print(outputs.describe_export(report))
