"""Trains a small CNN on real digits, quantizes, exports and compares. Offline.

Example:
  dqa demo --output build/demo

Takes scikit-learn's 1,797 digits (8x8 pixels) and trains on 1,200 of them. Quantizes
with `direct`, `noisyquant` and `dqa` at 3, 4 and 5 bits. Exports each to .tflite and
runs it in LiteRT on the other 597. Writes summary.json, report.html, accuracy.svg and
the .tflite files.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from matplotlib.axes import Axes
from tqdm import tqdm

import dqa_keras as dqa
from dqa_keras import files, plots
from dqa_keras.analysis.text import table
from dqa_keras.cli import measure, shared_flags
from dqa_keras.export import export_tflite
from dqa_keras.report import page
from dqa_keras.report.findings import Findings, Scores, examine

_TRAINING_IMAGES = 1200
_EPOCHS = 25
_BITS: tuple[int, ...] = (3, 4, 5)

# The model whose layers the page shows.
_SHOWN = "dqa_4"

# A demo whose float model is worse than this has not trained.
_LEAST_ACCURACY = 95.0


def define(values: flags.FlagValues) -> None:
    """Flags of the command."""
    flags.DEFINE_string(
        "output", "build/demo", "Folder for what is written.", flag_values=values
    )


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    shared_flags.no_arguments(arguments)
    if not values.output:
        raise ValueError("--output must name a folder. Received: nothing")
    folder = Path(values.output)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    (x_train, y_train), (x_test, y_test) = _digits()
    model = _trained(x_train, y_train)
    test = tf.data.Dataset.from_tensor_slices((x_test, y_test))
    float_accuracy = measure.accuracy(model, test)
    rows = []
    quantized = {}
    configs = [
        dqa.DQAConfig(bits=bits, method=method)
        for bits in _BITS
        for method in shared_flags.METHODS
    ]
    for config in tqdm(configs, desc="quantize and export", unit="model"):
        candidate = dqa.quantize_model(model, config)
        dqa.calibrate(candidate, x_train, verbose=0)
        name = f"{config.method}_{config.bits}"
        path = folder / f"{name}.tflite"
        exported = export_tflite(
            candidate, path, samples=x_test[:4], labels=[str(d) for d in range(10)]
        )
        storage = dqa.storage_bits(candidate, x_test)
        quantized[name] = candidate
        rows.append(
            {
                "method": config.method,
                "bits": config.bits,
                "keras_accuracy": measure.accuracy(candidate, test),
                "tflite_accuracy": measure.tflite_accuracy(path, test),
                "stored_bits": storage.total,
                "activation_kib": storage.kib,
                "file_kib": exported.size / 1024,
                "max_difference": exported.max_difference,
            }
        )
    summary = {"float_accuracy": float_accuracy, "images": len(y_test), "rows": rows}
    with files.replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1))
    cells = _cells(summary)
    with files.replacing(folder / "accuracy.svg") as temporary:
        temporary.write_text(plots.svg(_accuracy(summary)))
    training = tf.data.Dataset.from_tensor_slices(x_train)
    findings = examine(quantized[_SHOWN], training.batch(64), test.batch(64))
    with files.replacing(folder / "report.html") as temporary:
        temporary.write_text(_page(summary, cells, findings))
    print(table(cells))
    print(f"\nwrote {folder}/summary.json, report.html and {len(rows)} .tflite files")
    if float_accuracy < _LEAST_ACCURACY:
        raise measure.ShortfallError(
            f"the float model reached {float_accuracy:.2f} %, "
            f"expected {_LEAST_ACCURACY} %"
        )


def _digits() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "the demo's images come with scikit-learn: pip install 'dqa_keras[demo]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:_TRAINING_IMAGES], order[_TRAINING_IMAGES:]
    return (x[train], y[train]), (x[test], y[test])


def _trained(x: np.ndarray, y: np.ndarray) -> keras.Model:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="digit"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv3"),
            layers.BatchNormalization(name="norm3"),
            layers.ReLU(name="relu3"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv4"),
            layers.GlobalAveragePooling2D(name="pool4"),
            layers.Dense(10, activation="softmax", name="digit_probability"),
        ],
        name="digits_cnn",
    )
    model.compile(
        keras.optimizers.Adam(3e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    epochs = tqdm(total=_EPOCHS, desc="train", unit="epoch")
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epochs.update()
    )
    model.fit(x, y, 32, _EPOCHS, verbose=0, callbacks=[callback])
    epochs.close()
    return model


def _cells(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    header = (
        "method,bits,float %,Keras %,.tflite %,stored bits,activations KiB,file KiB"
    )
    return [
        tuple(header.split(",")),
        *(
            (
                row["method"],
                str(row["bits"]),
                f"{summary['float_accuracy']:.2f}",
                f"{row['keras_accuracy']:.2f}",
                f"{row['tflite_accuracy']:.2f}",
                f"{row['stored_bits']:.3f}",
                f"{row['activation_kib']:.2f}",
                f"{row['file_kib']:.1f}",
            )
            for row in summary["rows"]
        ),
    ]


def _points(summary: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in summary["rows"]:
        point = row["stored_bits"], row["tflite_accuracy"]
        points.setdefault(row["method"], []).append(point)
    return points


def _accuracy(summary: dict[str, Any]) -> Axes:
    return plots.accuracy_against_bits(_points(summary), summary["float_accuracy"])


def _page(
    summary: dict[str, Any], cells: list[tuple[str, ...]], findings: Findings
) -> str:
    """The report of one of the models, with the figures of all above it."""
    images = summary["images"]
    (row,) = (r for r in summary["rows"] if f"{r['method']}_{r['bits']}" == _SHOWN)
    scores = Scores(
        measure="accuracy in LiteRT (%)",
        images=images,
        points=_points(summary),
        this=(row["stored_bits"], row["tflite_accuracy"]),
        unquantized=summary["float_accuracy"],
    )
    text = (
        f"A small CNN on scikit-learn's digits, {images} test images, so one image is "
        f"{100 / images:.2f} points. Each model was calibrated on the training images, "
        "exported to .tflite and run in LiteRT. The .tflite simulates low-bit storage "
        "with float32 tensors: it shows the accuracy, and does not by itself lower "
        f"memory on the phone. What follows the table is of {_SHOWN}."
    )
    above = page.paragraph(text) + page.sortable(cells, "Methods and bits")
    return page.render(dataclasses.replace(findings, scores=scores), above)
