"""Quantizes a trained model, exports it and checks it.

Example:
  dqa quantize --model m.keras --data digits.npz --bits 4 --output m.tflite

Calibrates on training images, measures accuracy and stored bits on the test images,
writes the file and runs it in LiteRT over the same images. With --mode packed the file
stores activations in few bits while it runs, and needs the runtime.

With --workers, start the same command on every machine, each with its own TF_CONFIG;
they share out the calibration, and worker 0 writes the file.
"""

from contextlib import nullcontext
from pathlib import Path

from absl import flags

import dqa_keras as dqa
from dqa_keras.calibration import distribution
from dqa_keras.cli import common
from dqa_keras.export import export_tflite
from dqa_keras.export.packed import pack
from dqa_keras.layers import quantizer_layers

# Images whose ranges a packed export goes by.
_RANGES = 32


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    common.define_model_flags(values)
    common.define_config_flags(values)
    flags.DEFINE_string(
        "output",
        None,
        "File to write: .tflite, or .keras to go on in Python.",
        flag_values=values,
        required=True,
    )
    common.define_tflite_flags(values)
    flags.DEFINE_string(
        "checkpoint",
        None,
        "File that calibration goes on from if it exists, and writes to.",
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
    common.no_arguments(arguments)
    output = Path(values.output)
    if output.suffix not in (".tflite", ".keras"):
        raise ValueError(f"--output must end in .tflite or .keras. Received: {output}")
    common.check_writable(output)
    if values.checkpoint:
        common.check_writable(Path(values.checkpoint))
    scope = common.workers_scope() if values.workers else nullcontext()
    config = common.config_from(values)
    model = common.load_model(values)
    data = common.load_data(values, model)
    quantized = dqa.quantize_model(model, config)
    if not quantizer_layers(quantized):
        reasons = [f"{s.name}: {s.reason}" for s in dqa.skipped(quantized)]
        raise ValueError(
            f"{values.model} has no activation to quantize"
            + (f" ({'; '.join(reasons)})" if reasons else "")
        )
    with scope:
        dqa.calibrate(
            quantized,
            data.train.batch(common.BATCH),
            batch_size=common.BATCH,
            checkpoint=values.checkpoint,
        )
        rank = distribution.team(quantized).rank
    if rank:
        print(f"worker {rank} is done; worker 0 writes {output}")
        return
    test = data.test.batch(common.BATCH)
    storage = dqa.storage_bits(quantized, test, verbose=1)
    dqa.summary(quantized, storage)
    print(f"\naccuracy, float model:     {common.accuracy(model, data.test):6.2f} %")
    print(f"accuracy, quantized model: {common.accuracy(quantized, data.test):6.2f} %")
    if output.suffix == ".keras":
        common.save_keras(quantized, output)
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
        weights=values.tflite_weights,
        samples=next(iter(few))[0].numpy(),
        labels=data.labels,
    )
    delegates = [pack.delegate()] if is_packed else []
    in_litert = common.tflite_accuracy(output, data.test, delegates)
    print(f"accuracy, .tflite:         {in_litert:6.2f} %")
    print(common.describe_export(report))
