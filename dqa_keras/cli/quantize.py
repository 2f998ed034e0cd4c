"""Quantizes a trained model, exports it and checks it.

Example:
  dqa quantize --model m.keras --data digits.npz --bits 4 --output m.tflite

Calibrates on training images, measures accuracy and stored bits on the test images,
writes the file and runs it in LiteRT over the same images.
"""

from pathlib import Path

from absl import flags

import dqa_keras as dqa
from dqa_keras.cli import common
from dqa_keras.export import export_tflite


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


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    common.no_arguments(arguments)
    output = Path(values.output)
    if output.suffix not in (".tflite", ".keras"):
        raise ValueError(f"--output must end in .tflite or .keras. Received: {output}")
    common.check_writable(output)
    config = common.config_from(values)
    model = common.load_model(values)
    data = common.load_data(values, model)
    quantized = dqa.quantize_model(model, config)
    dqa.calibrate(quantized, data.train.batch(common.BATCH))
    test = data.test.batch(common.BATCH)
    storage = dqa.storage_bits(quantized, test, verbose=1)
    dqa.summary(quantized, storage)
    print(f"\naccuracy, float model:     {common.accuracy(model, data.test):6.2f} %")
    print(f"accuracy, quantized model: {common.accuracy(quantized, data.test):6.2f} %")
    if output.suffix == ".keras":
        common.save_keras(quantized, output)
        print(f"wrote {output}")
        return
    report = export_tflite(
        quantized,
        output,
        weights=values.tflite_weights,
        samples=next(iter(data.test.batch(4)))[0].numpy(),
        labels=data.labels,
    )
    in_litert = common.tflite_accuracy(output, data.test)
    print(f"accuracy, .tflite:         {in_litert:6.2f} %")
    print(common.describe_export(report))
