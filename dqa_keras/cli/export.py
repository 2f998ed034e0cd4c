"""Exports a calibrated .keras file to .tflite and checks it.

Example:
  dqa quantize --model m.keras --data digits.npz --bits 4 --output quantized.keras
  dqa export --model quantized.keras --output m.tflite
  dqa export --model quantized.keras --output m.tflite --mode packed
  dqa export --model quantized.keras --output m.tflite --mean 127.5 --std 127.5
  dqa export --model any_size.keras --output m.tflite --input_shape 224,224,3
  dqa export --model quantized.keras --android out --package com.example.app
"""

from pathlib import Path

from absl import flags

from dqa_keras.cli import inputs, outputs, shared_flags
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
    flags.DEFINE_list(
        "input_shape",
        None,
        "Height, width and channels of the images that the file takes: for a model "
        "that leaves sizes open.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "samples",
        None,
        "An .npy file with a batch of real inputs, to set ranges and check with.",
        flag_values=values,
    )
    flags.DEFINE_list("labels", None, "Class labels.", flag_values=values)


def _input_shape(sizes: list[str] | None) -> tuple[int, ...] | None:
    if sizes is None:
        return None
    try:
        return tuple(map(int, sizes))
    except ValueError as error:
        raise ValueError(
            "--input_shape must be whole numbers with commas between them, such as "
            f"224,224,3. Received: {','.join(sizes)}"
        ) from error


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    shared_flags.no_arguments(arguments)
    if (values.output is None) == (values.android is None):
        raise ValueError("give either --output FILE.tflite or --android FOLDER")
    output = None if values.output is None else Path(values.output)
    shared_flags.check_tflite_flags(values, output)
    if output is not None:
        if output.suffix == ".keras":
            raise ValueError(f"--output must be a .tflite. Received: {output}")
        outputs.check_writable(output, values.model, values.samples)
    normalization = shared_flags.normalization_from(values)
    input_shape = _input_shape(values.input_shape)
    samples = None
    if values.samples is not None:
        samples = inputs.load_npy("samples", values.samples)
    model = load_keras(values.model)
    options = {
        "mode": values.mode,
        "strict": values.strict,
        "skips": values.skips,
        "arena_kib": values.arena_kib,
        "samples": samples,
        "input_shape": input_shape,
        "weights": values.tflite_weights,
        "normalization": normalization,
        "labels": values.labels,
    }
    if output is not None:
        report = export_tflite(model, output, **options)
    else:
        report = export_android(
            model, values.android, package=values.package, **options
        )
    print(outputs.describe_export(report))
