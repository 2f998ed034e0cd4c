"""Exports a calibrated .keras file to .tflite and checks it.

Example:
  dqa quantize --model m.keras --data digits.npz --bits 4 --output quantized.keras
  dqa export --model quantized.keras --output m.tflite
"""

from pathlib import Path

import keras
from absl import flags

from dqa_keras.cli import common
from dqa_keras.export import export_tflite


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    flags.DEFINE_string(
        "model", None, "A calibrated .keras file.", flag_values=values, required=True
    )
    flags.DEFINE_string(
        "output", None, "The .tflite to write.", flag_values=values, required=True
    )
    common.define_tflite_flags(values)
    flags.DEFINE_list("labels", None, "Class labels.", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    common.no_arguments(arguments)
    if not Path(values.model).is_file():
        raise ValueError(f"no such model file: {values.model}")
    report = export_tflite(
        keras.models.load_model(values.model),
        values.output,
        weights=values.tflite_weights,
        labels=values.labels,
    )
    print(common.describe_export(report))
