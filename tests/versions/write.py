"""Writes a packed file with two `DQA` ops, built-in ones around them, and an input.

    python write.py FOLDER

What lies outside is exact in every engine: one multiplication a value.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import dqa_keras as dqa
from dqa_keras.export import export_tflite


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((12, 10, 3))
    x = skip = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.LeakyReLU(0.25)(layers.Conv2D(6, 1)(x))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    data = np.random.default_rng(0).normal(size=(4, 12, 10, 3)).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(model, data, verbose=0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.tflite"
    report = export_tflite(model, path, mode="packed", samples=data)
    if report.ops.get("DQA", 0) < 2 or len(report.ops) < 2:
        raise ValueError(f"two regions and something between. Received: {report.ops}")
    np.save(folder / "input.npy", data[:1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
