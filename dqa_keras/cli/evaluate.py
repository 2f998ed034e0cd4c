r"""Accuracy and measured stored bits of methods, bits and presets on a data set.

Example:
  dqa evaluate --model resnet32 --weights resnet32_cifar10.npz \
      --data cifar10 --data_dir ../shared/data/tfds --json resnet32.json

Calibrates on training images, measures on the test images: accuracy, agreement with the
float model's classes and the outputs' relative squared error. With --json, rows that
the file already holds are not computed again.
"""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

import dqa_keras as dqa
from dqa_keras import files
from dqa_keras.analysis.text import table
from dqa_keras.cli import inputs, measure, outputs, shared_flags
from dqa_keras.cli.int8 import int8_tflite
from dqa_keras.export import export_tflite

# The row of LiteRT's int8: preset, method and bits, as of all rows.
_INT8 = "LiteRT int8 8"


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    shared_flags.define_model_flags(values)
    flags.DEFINE_list(
        "presets", list(shared_flags.PRESETS), "Presets to measure.", flag_values=values
    )
    flags.DEFINE_list(
        "methods", list(shared_flags.METHODS), "Methods to measure.", flag_values=values
    )
    flags.DEFINE_list("bits", ["3", "4", "5"], "Bits n to measure.", flag_values=values)
    flags.DEFINE_string("json", None, "File for the figures.", flag_values=values)
    flags.DEFINE_bool(
        "tflite",
        False,
        "Also export each model and measure it in LiteRT.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "int8",
        False,
        "Also measure what LiteRT's converter makes of the model in int8.",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    shared_flags.no_arguments(arguments)
    configs = _configs(values)
    output = Path(values.json) if values.json else None
    if output:
        outputs.check_writable(output, values.model, values.data)
    model = inputs.load_model(values)
    data = inputs.load_data(values, model)
    result: dict[str, Any] = {
        "model": values.model,
        "data": values.data,
        "calibration_images": values.calibration_images,
        "limit": values.limit,
    }
    rows: dict[str, Any] = _finished(output, result)
    if "float" not in rows:
        rows["float"] = {"accuracy": measure.accuracy(model, data.test)}
    print(f"float: {rows['float']['accuracy']:.2f} %", flush=True)
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        name: partial(_measured, values, model, config, data)
        for name, config in configs.items()
    }
    if values.int8:
        tasks[_INT8] = partial(_int8, model, data)
    for name, task in tasks.items():
        missing = values.tflite and name != _INT8
        if name not in rows or (missing and "tflite_accuracy" not in rows[name]):
            rows[name] = task()
            if output:
                with files.replacing(output) as temporary:
                    text = json.dumps({**result, "rows": rows}, indent=1)
                    temporary.write_text(text)
        row = rows[name]
        print(
            f"{name}: {row['accuracy']:.2f} %, {row['stored_bits']:.3f} stored bits",
            flush=True,
        )
    print("\n" + _text(rows, list(tasks)))


def _configs(values: flags.FlagValues) -> dict[str, dqa.DQAConfig]:
    for name in ("presets", "methods", "bits"):
        if not any(getattr(values, name)):
            raise ValueError(f"--{name} must name at least one. Received: nothing")
    configs = {}
    for preset in values.presets:
        if preset not in shared_flags.PRESETS:
            raise ValueError(
                f"--presets must be of {', '.join(shared_flags.PRESETS)}. "
                f"Received: {preset}"
            )
        for method in values.methods:
            for bits in values.bits:
                if not bits.isdecimal():
                    raise ValueError(f"--bits must be whole numbers. Received: {bits}")
                config = shared_flags.preset(preset, bits=int(bits), method=method)
                configs[f"{preset} {method} {bits}"] = config
    return configs


def _finished(output: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Rows of an earlier run with the same settings."""
    if output is None or not output.exists() or files.takes_content(output):
        return {}
    try:
        content = json.loads(output.read_text())
        rows = content.pop("rows")
        for name, row in rows.items():
            needed = {"accuracy"} if name == "float" else {"accuracy", "stored_bits"}
            for key, value in row.items():
                if key == "config":
                    continue
                if type(value) not in (int, float) or not math.isfinite(value):
                    raise ValueError(f"{key} of {name} is no finite number")
            if not needed <= set(row):
                raise ValueError(f"{name} lacks {', '.join(needed - set(row))}")
    except (
        ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{output} is not a file of dqa evaluate: move it away"
        ) from error
    if content != settings:
        raise ValueError(f"{output} holds figures of other settings: move it away")
    return rows


def _measured(
    values: flags.FlagValues, model: Any, config: dqa.DQAConfig, data: Any
) -> dict[str, Any]:
    quantized = inputs.quantized(values.model, model, config)
    start = time.perf_counter()
    train = data.train.batch(inputs.BATCH)
    dqa.calibrate(quantized, train, batch_size=inputs.BATCH)
    seconds = time.perf_counter() - start
    row = {
        **measure.compared(quantized, model, data.test),
        "stored_bits": float(config.bits),
        "calibration_seconds": seconds,
        "config": config.to_dict(),
    }
    if config.method == "dqa":  # the baselines store exactly n bits
        test = data.test.batch(inputs.BATCH)
        row["stored_bits"] = dqa.storage_bits(quantized, test).total
    if values.tflite:
        with outputs.scratch_file(".tflite") as path:
            samples = next(iter(data.test.batch(4)))[0].numpy()
            report = export_tflite(quantized, path, samples=samples)
            row["tflite_accuracy"] = measure.tflite_accuracy(path, data.test)
            row["tflite_bytes"] = report.size
    return row


def _int8(model: Any, data: Any) -> dict[str, Any]:
    content = int8_tflite(model, data.train)
    return {**measure.tflite_compared(content, model, data.test), "stored_bits": 8.0}


def _text(rows: dict[str, Any], names: list[str]) -> str:
    header = (
        "preset,method,bits,stored bits,accuracy,below float,agreement,error,.tflite"
    )
    lines = [tuple(header.split(","))]
    reference = rows["float"]["accuracy"]
    for name in names:
        row = rows[name]
        preset, method, bits = name.split()
        lines.append(
            (
                preset,
                method,
                bits,
                f"{row['stored_bits']:.3f}",
                f"{row['accuracy']:.2f}",
                f"{reference - row['accuracy']:.2f}",
                f"{row['agreement']:.2f}" if "agreement" in row else "-",
                f"{row['output_error']:.4f}" if "output_error" in row else "-",
                f"{row['tflite_accuracy']:.2f}" if "tflite_accuracy" in row else "-",
            )
        )
    return table(lines)
