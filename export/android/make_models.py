"""Exports what the JVM's tests read: `make_models.py FOLDER`.

The reference models with random weights, built-in and packed, and small ones with
other inputs; beside each a random image and what LiteRT makes of it here. The Python of
docs/android.md runs too: what it exports is compiled with the rest.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import dqa_keras as dqa
from dqa_keras import models
from dqa_keras.export import export_android
from dqa_keras.export.litert.interpreter import Runner
from dqa_keras.export.packed import pack

DOCUMENT = Path(__file__).parents[2] / "docs" / "android.md"
LABELS = ["sky", "tree", "road", *(f"class {index}" for index in range(3, 11))]


def calibrated(model: keras.Model) -> tuple[keras.Model, Any]:
    """The model quantized, and the images that it was calibrated with."""
    shape = (4, *model.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape).astype("float32")
    # Random weights alone let deep activations fade away.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(quantized, images, verbose=0)
    return quantized, images


def export(folder: Path, model: keras.Model, mode: str, **options: Any) -> None:
    """Writes `folder/MODEL_MODE`, with an image and what LiteRT and Keras make of it.

    The image is `image.png` and, as RGB bytes, `image.bin`; LiteRT's answer is
    `scores.bin` (float32), and the number of Keras's class is in `class.txt`.
    """
    quantized, images = calibrated(model)
    path = folder / f"{model.name}_{mode}"
    package = f"com.example.{model.name}.{mode}"
    export_android(
        quantized, path, package=package, mode=mode, samples=images, **options
    )
    data = (path / f"src/main/assets/{model.name}.tflite").read_bytes()
    mean, std = options.get("normalization", ([0], [1]))
    run = Runner(data, delegates=[pack.delegate()] if mode == "packed" else [])
    given = (images[:1] - np.float32(mean)) / np.float32(std)
    (scores,) = run(given)
    image = images[0].astype(np.uint8)
    rgb = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    (path / "image.bin").write_bytes(rgb.tobytes())
    (path / "scores.bin").write_bytes(scores.astype("<f4").tobytes())
    keras.utils.save_img(path / "image.png", image, scale=False)
    if scores.ndim == 2:
        best = int(np.argmax(quantized(given)))
        (path / "class.txt").write_text(f"{best}\n")


def small(
    channels: int, name: str, image_size: tuple[int, int] = (8, 10)
) -> keras.Model:
    """A few layers."""
    layers = [
        keras.Input((*image_size, channels)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    return keras.Sequential(layers, name=name)


def main(folder: Path) -> None:
    """Writes everything into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    scenes = models.unet(filters=8, depth=2, image_size=(36, 48))
    for mode in ("builtin", "packed"):
        export(folder, models.resnet32(), mode, labels=LABELS[:10])
        export(folder, models.mobilenet_v2(), mode)
        export(folder, scenes, mode, labels=LABELS)
        export(folder, small(4, "depth"), mode)
    export(folder, small(1, "grey"), "builtin", normalization=([120], [60]))
    export(folder, small(3, "bytes"), "packed", inputs="uint8")
    export(folder, small(3, "odd", (31, 33)), "packed")
    task = {"labels": ["é", "two", "3"], "normalization": ([120, 121, 122], [60] * 3)}
    export(folder, small(3, "task"), "builtin", **task)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    os.chdir(folder)
    exec(compile("".join(blocks), str(DOCUMENT), "exec"), {})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
