"""Writes one page on a model: accuracy, layers, errors, memory, channels, histograms.

Example:
  dqa report m.keras --data digits.npz --bits 4 -o report.html
  dqa report quantized.keras --data cifar10 --data_dir tfds -o report.html
  dqa report m.tflite --data digits.npz -o report.html --overlay overlays/m

A .keras file without quantizers is quantized and calibrated first, as the flags say;
one with quantizers is shown as it is. A .tflite runs in LiteRT; the page says what only
the Keras model could show. --data may also be an .npy file of inputs without labels:
the output of the unquantized model then takes their place. The page opens in any
browser, without a network.
"""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags

import dqa_keras as dqa
from dqa_keras import files
from dqa_keras.cli import inputs, outputs, shared_flags
from dqa_keras.export import model_explorer
from dqa_keras.export.file_report import examine_tflite, input_shape, output_shape
from dqa_keras.export.plan_choices import plan_choices
from dqa_keras.layers import quantizer_layers
from dqa_keras.report import page
from dqa_keras.report.findings import Findings, examine

_BATCH = 32


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    shared_flags.define_data_flags(values)
    shared_flags.define_config_flags(values)
    values.set_default("limit", 1000)
    flags.DEFINE_string(
        "output",
        "report.html",
        "The page to write.",
        short_name="o",
        flag_values=values,
    )
    flags.DEFINE_string(
        "overlay",
        None,
        "Of a .tflite, also write PREFIX.stored_bits.json and PREFIX.sqnr.json: node "
        "data for ai-edge-model-explorer.",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    if len(arguments) != 1:
        raise ValueError(f"report takes one model. Received: {len(arguments)}")
    name, output = arguments[0], Path(values.output)
    outputs.check_writable(output, name, values.data)
    if values.overlay:
        outputs.check_writable(Path(f"{values.overlay}.json"))
    is_tflite = name.endswith(".tflite")
    if values.overlay and not is_tflite:
        raise ValueError(f"--overlay is for the nodes of a .tflite. Received: {name}")
    config = shared_flags.config_from(values)
    if is_tflite:
        _no_config(values, name)
    findings = (
        _of_tflite(values, name) if is_tflite else _of_keras(values, name, config)
    )
    text = page.render(findings)
    with files.replacing(output) as temporary:
        temporary.write_text(text)
    print(f"wrote {output}: {len(text.encode()) / 1024:.0f} KiB")
    if values.overlay:
        for path in model_explorer.write(name, findings, values.overlay):
            print(f"wrote {path}")


def _data(
    values: flags.FlagValues,
    shape: tuple[int | None, ...],
    scores: tuple[int | None, ...],
) -> tuple[Any, Any]:
    """Batches to calibrate with and to measure on."""
    if values.data.endswith(".npy"):
        return _unlabelled(values, shape)
    splits = inputs.open_data(values, shape, scores)
    return splits.train.batch(_BATCH), splits.test.batch(_BATCH)


def _unlabelled(
    values: flags.FlagValues, shape: tuple[int | None, ...]
) -> tuple[Any, Any]:
    import tensorflow as tf

    x = inputs.load_npy("data", values.data).astype(np.float32)
    inputs.check_shape(values.data, x.shape[1:], shape)
    data = tf.data.Dataset.from_tensor_slices(x)
    test = data.take(values.limit) if values.limit else data
    return data.take(values.calibration_images).batch(_BATCH), test.batch(_BATCH)


def _no_config(values: flags.FlagValues, name: str) -> None:
    """Raises ValueError if flags would change quantizers that a file has."""
    names = [f for f in (*shared_flags.CONFIG, "weights") if values[f].present]
    if names:
        raise ValueError(
            f"--{', --'.join(names)} are for models without quantizers. {name} is "
            "shown as it is."
        )


def _of_tflite(values: flags.FlagValues, path: str) -> Findings:
    _, test = _data(values, input_shape(path), output_shape(path))
    return examine_tflite(path, test)


def _of_keras(values: flags.FlagValues, name: str, config: dqa.DQAConfig) -> Findings:
    model: keras.Model = inputs.open_model(name, values.weights)
    inputs.check_model(model)
    calibration, test = _data(values, model.input_shape, model.output_shape)
    if quantizer_layers(model):
        _no_config(values, name)
    else:
        model = inputs.quantized(name, model, config)
        dqa.calibrate(model, calibration)
    findings = examine(model, calibration, test)
    if None in model.input_shape[1:]:
        why = "Not here: the model leaves its size open, and a plan is for one size."
        return dataclasses.replace(findings, absent={"choices": why})
    batch = next(iter(calibration))
    images = batch[0] if isinstance(batch, tuple) else batch
    return dataclasses.replace(findings, choices=plan_choices(model, images[:1]))
