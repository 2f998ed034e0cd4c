"""Writes two packed files, and an input for each.

    python write.py FOLDER

`model.tflite` has two `DQA` ops and built-in ones around them; what lies outside is
exact in every engine: one multiplication a value. `coded.tflite` stores a skip
Huffman-coded.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import dqa_keras as dqa
from dqa_keras.export import ExportReport, export_tflite

layers = keras.layers


def split() -> keras.Model:
    inputs = keras.Input((12, 10, 3))
    x = skip = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    # Slopes that differ between pixels stay outside.
    slopes = keras.initializers.RandomUniform(0, 0.5, seed=0)
    x = layers.PReLU(alpha_initializer=slopes)(layers.Conv2D(6, 1)(x))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def hourglass() -> keras.Model:
    inputs = x = keras.Input((96, 96, 1))
    x = skip = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(8)(x)
    for _ in range(6):
        x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.UpSampling2D(8)(x), skip])
    return keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(x))


def write(model: keras.Model, path: Path, skips: str) -> ExportReport:
    """Exports a model with random weights; its first image goes beside it."""
    shape = (4, *model.input_shape[1:])
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(model, data, verbose=0)
    np.save(path.with_suffix(".npy"), data[:1])
    return export_tflite(model, path, mode="packed", samples=data, skips=skips)


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    ops = write(split(), folder / "model.tflite", "raw").ops
    if ops.get("DQA", 0) < 2 or len(ops) < 2:
        raise ValueError(f"two regions and something between. Received: {ops}")
    (region,) = write(hourglass(), folder / "coded.tflite", "coded").packed.regions
    if region.coded != 1:
        raise ValueError(f"one coded skip. Received: {region}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
