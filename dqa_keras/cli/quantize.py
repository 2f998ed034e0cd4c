"""Quantizes a trained model, exports it and checks it.

Example:
  dqa quantize --model m.keras --data digits.npz --bits 4 --output m.tflite

Calibrates on training images and measures accuracy, agreement with the float model's
classes and stored bits on the test images. Names the layers that cost the output most,
with its SQNR when one of them alone is quantized. Writes the file and runs it in LiteRT
over the same images. With --mode packed the file stores activations in few bits while
it runs, and needs the runtime.

With --workers, start the same command on every machine, each with its own TF_CONFIG;
they share out the calibration, and worker 0 writes the file.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
from absl import flags

import dqa_keras as dqa
from dqa_keras.analysis.text import printable
from dqa_keras.backend import data_adapter
from dqa_keras.calibration import distribution, output_noise
from dqa_keras.cli import inputs, measure, outputs, shared_flags
from dqa_keras.export import export_tflite
from dqa_keras.export.litert import annotations
from dqa_keras.export.packed import pack

# Images whose ranges a packed export goes by.
_RANGES = 32

# Layers that are named as costing most, and images that they are found on.
_COSTLIEST = 3
_NOISE_IMAGES = 8


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    shared_flags.define_model_flags(values)
    shared_flags.define_config_flags(values)
    flags.DEFINE_string(
        "output",
        None,
        "File to write: .tflite, or .keras to go on in Python.",
        flag_values=values,
        required=True,
    )
    shared_flags.define_tflite_flags(values)
    flags.DEFINE_string(
        "checkpoint",
        None,
        "File that calibration goes on from if it exists, and writes to; "
        "reconstruction has one beside it.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "reconstruct",
        False,
        "Fit weights and biases so that layers give again what they gave unquantized.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "workers",
        False,
        "Calibrate together with the other workers that TF_CONFIG names.",
        flag_values=values,
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    shared_flags.no_arguments(arguments)
    output = Path(values.output)
    if output.suffix not in (".tflite", ".keras"):
        raise ValueError(f"--output must end in .tflite or .keras. Received: {output}")
    shared_flags.check_tflite_flags(values, output)
    sources = values.model, values.data
    outputs.check_writable(output, *sources)
    if values.checkpoint:
        outputs.check_writable(Path(values.checkpoint), *sources)
    config = shared_flags.config_from(values)
    normalization = shared_flags.normalization_from(values)
    scope = inputs.workers_scope() if values.workers else nullcontext()
    model = inputs.load_model(values)
    data = inputs.load_data(values, model)
    if output.suffix == ".tflite":
        annotations.checked_normalization(model, normalization)
        annotations.checked_labels(model, data.labels)
    quantized = inputs.quantized(values.model, model, config)
    with scope:
        dqa.calibrate(
            quantized,
            data.train.batch(inputs.BATCH),
            batch_size=inputs.BATCH,
            checkpoint=values.checkpoint,
        )
        rank = distribution.worker_group(quantized).rank
    if rank:
        print(f"worker {rank} is done; worker 0 writes {output}")
        return
    if values.reconstruct:
        path = values.checkpoint and values.checkpoint + ".reconstruction"
        calibration = data.train.batch(inputs.BATCH)
        dqa.reconstruct(quantized, model, calibration, checkpoint=path)
    test = data.test.batch(inputs.BATCH)
    storage = dqa.storage_bits(quantized, test, verbose=1)
    dqa.summary(quantized, storage)
    print(f"\naccuracy, float model:     {measure.accuracy(model, data.test):6.2f} %")
    figures = measure.compared(quantized, model, data.test)
    print(f"accuracy, quantized model: {figures['accuracy']:6.2f} %")
    print(f"agreement with float:      {figures['agreement']:6.2f} %")
    print(f"costs the output most:     {_costliest(quantized, data.train)}")
    if output.suffix == ".keras":
        outputs.save_keras(quantized, output)
        print(f"wrote {output}")
        return
    # Samples of a packed export set ranges: images that calibration saw.
    is_packed = values.mode == "packed"
    few = data.train.batch(_RANGES) if is_packed else data.test.batch(4)
    report = export_tflite(
        quantized,
        output,
        mode=values.mode,
        strict=values.strict,
        skips=values.skips,
        arena_kib=values.arena_kib,
        weights=values.tflite_weights,
        samples=next(iter(few))[0].numpy(),
        normalization=normalization,
        labels=data.labels,
    )
    delegates = [pack.delegate()] if is_packed else []
    in_litert = measure.tflite_accuracy(output, data.test, delegates)
    print(f"accuracy, .tflite:         {in_litert:6.2f} %")
    print(outputs.describe_export(report))


def _costliest(quantized: keras.Model, images: Any) -> str:
    """The layers whose codes move the output most, with its SQNR by each alone."""
    batch = data_adapter.fixed_batch_size(quantized) or _NOISE_IMAGES
    few = images.batch(batch).take(1)
    layers = output_noise.output_sqnr(quantized, few, batch_size=batch).layers
    first = sorted(layers, key=layers.__getitem__)[:_COSTLIEST]
    return ", ".join(printable(f"{name} ({layers[name]:.1f} dB)") for name in first)
