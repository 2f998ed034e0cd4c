"""Accuracy of packed models on test splits, beside Keras and the built-in export.

    dqa bench packed_accuracy --model resnet32 --weights resnet32_cifar10.npz
        --data cifar10 --data_dir tfds --json benchmarks/results/packed_accuracy.json

Top-1 in percent, or mean IoU where labels are masks. 4 bits, 2 extra bits for
a quarter of the channels, or what calibration chooses under --budget_bits. Calibrated
on 1,000 training images, whose first 64 also set the ranges of what no quantizer
rounds. With --quantize_linear linear bottlenecks get quantizers too. Rows of other
models and options in the JSON file are kept. Exits with 1 if the packed model is more
than 0.3 points below Keras.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_CALIBRATION, _RANGES, _BATCH = 1000, 64, 128
_ALLOWED = 0.3


def measure(options: argparse.Namespace) -> dict:
    import dqa_keras as dqa
    from dqa_keras import datasets
    from dqa_keras.cli import measure
    from dqa_keras.cli.inputs import BUILT_IN
    from dqa_keras.export import export_tflite
    from dqa_keras.export.packed import pack

    model = BUILT_IN[options.model](options.weights)
    splits = datasets.load(options.data, data_dir=options.data_dir)
    test = splits.test.take(options.limit) if options.limit else splits.test
    config = dqa.DQAConfig(
        bits=4,
        extra_bits=2,
        budget_bits=options.budget_bits,
        quantize_linear=options.quantize_linear,
    )
    quantized = dqa.quantize_model(model, config)
    train = splits.train.take(_CALIBRATION)
    dqa.calibrate(quantized, train.batch(_BATCH), verbose=0)
    images = next(train.batch(_RANGES).as_numpy_iterator())[0]
    row = {
        "images": int(test.cardinality()),
        "float": measure.accuracy(model, test),
        "keras": measure.accuracy(quantized, test),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        export_tflite(quantized, path, samples=images[:2])
        row["builtin"] = measure.tflite_accuracy(path, test)
        report = export_tflite(quantized, path, mode="packed", samples=images)
        row["packed"] = measure.tflite_accuracy(path, test, [pack.delegate()])
    row["regions"] = len(report.packed.regions)
    row["outside"] = report.packed.outside
    return row


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--model", required=True, help="as for dqa evaluate")
    flags.add_argument("--weights", required=True, help="as for dqa evaluate")
    flags.add_argument("--data", required=True, help="as for dqa evaluate")
    flags.add_argument("--data_dir", help="where TFDS keeps prepared datasets")
    flags.add_argument("--quantize_linear", action="store_true", help="as in DQAConfig")
    flags.add_argument("--budget_bits", type=float, help="as in DQAConfig")
    flags.add_argument(
        "--limit", type=arguments.limit, default=0, help="test images; 0 takes all"
    )
    flags.add_argument("--json", type=arguments.output, help="file for the figures")
    options = flags.parse_args()
    from dqa_keras.cli.inputs import BUILT_IN

    if options.model not in BUILT_IN:
        flags.error(f"--model must be one of {', '.join(BUILT_IN)}")
    row = measure(options)
    name = options.model + (" quantize_linear" if options.quantize_linear else "")
    if options.budget_bits is not None:
        name += f" budget {options.budget_bits:g}"
    print(
        f"{name} on {row['images']} images: float {row['float']:.2f}, "
        f"quantized in Keras {row['keras']:.2f}, built-in export {row['builtin']:.2f}, "
        f"packed {row['packed']:.2f}"
    )
    if options.json:
        results.write(options.json, {**results.read(options.json), name: row})
    if row["packed"] < row["keras"] - _ALLOWED:
        sys.exit(1)


if __name__ == "__main__":
    main()
