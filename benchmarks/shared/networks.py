"""Networks that memory and latency are measured on, as float, int8 and packed files.

"mobilenet_v2_linear" is MobileNetV2 with `quantize_linear=True`: its linear bottlenecks
have quantizers too, which the default leaves alone.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from shared import arguments

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NAMES = ("unet", "mobilenet_v2", "mobilenet_v2_linear", "resnet32")
KINDS = ("float", "int8", "packed", "coded", "bytes")


def unet(size: int, widths: tuple[int, ...], bottleneck: int):
    import keras
    from keras import layers

    def block(x, filters):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = x = keras.Input((size, size, 3))
    skips = []
    for width in widths:
        skips.append(block(x, width))
        x = layers.MaxPooling2D()(skips[-1])
    x = block(x, bottleneck)
    for width, skip in zip(reversed(widths), reversed(skips), strict=True):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = block(layers.Concatenate()([x, skip]), width)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def efficientnet_lite0():
    """EfficientNet-Lite0's shape: no squeeze-and-excitation, ReLU6 for swish."""
    import keras
    from keras import layers

    def normalized(x, activation=True):
        x = layers.BatchNormalization()(x)
        return layers.ReLU(6.0)(x) if activation else x

    def block(x, filters, taps, stride, expansion):
        y = x
        if expansion > 1:
            y = layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False)(y)
            y = normalized(y)
        y = layers.DepthwiseConv2D(taps, stride, padding="same", use_bias=False)(y)
        y = layers.Conv2D(filters, 1, use_bias=False)(normalized(y))
        y = normalized(y, activation=False)
        return layers.Add()([x, y]) if x.shape == y.shape else y

    inputs = keras.Input((224, 224, 3))
    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False)(inputs)
    x = block(normalized(x), 16, 3, 1, 1)
    for filters, repeats, taps, stride in (
        (24, 2, 3, 2), (40, 2, 5, 2), (80, 3, 3, 2),
        (112, 3, 5, 1), (192, 4, 5, 2), (320, 1, 3, 1),
    ):  # fmt: skip
        for number in range(repeats):
            x = block(x, filters, taps, stride if number == 0 else 1, 6)
    x = normalized(layers.Conv2D(1280, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(1000)(x))


def network(name: str):
    """The Keras model with random weights, and images for it."""
    import keras
    import numpy as np

    from dqa_keras.models import resnet32

    keras.utils.set_random_seed(0)
    if name == "unet":
        model = unet(512, (32, 64, 128), 256)
    elif name == "efficientnet_lite0":
        model = efficientnet_lite0()
    elif name == "mobilenet_v2_035":
        model = keras.applications.MobileNetV2(
            (144, 144, 3), alpha=0.35, weights=None, classifier_activation=None
        )
    elif name == "mobilenet_v3_large":
        model = keras.applications.MobileNetV3Large(
            (224, 224, 3), weights=None, classifier_activation=None
        )
    elif name == "efficientnet_v2_b0":
        model = keras.applications.EfficientNetV2B0(
            weights=None, input_shape=(224, 224, 3), classifier_activation=None
        )
    elif name.startswith("mobilenet_v2"):
        model = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    else:
        model = resnet32()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, *model.input_shape[1:]))
    return model, images.astype(np.float32)


def write(name: str, folder: Path) -> None:
    """Writes the files of one network: float, int8, packed, with coded skips, bytes."""
    import tensorflow as tf

    import dqa_keras as dqa
    from dqa_keras.export.litert import flatbuffer, metadata
    from dqa_keras.export.litert.conversion import convert
    from dqa_keras.export.packed import pack
    from dqa_keras.export.packed.io_types import ByteInput
    from dqa_keras.export.plan.scheduling import schedule

    model, images = network(name)
    (folder / f"{name}.float.tflite").write_bytes(convert(model, "float32"))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with contextlib.redirect_stdout(io.StringIO()):
        (folder / f"{name}.int8.tflite").write_bytes(converter.convert())
    linear = name.endswith("_linear")
    config = dqa.DQAConfig(bits=4, extra_bits=2, quantize_linear=linear)
    quantized = dqa.quantize_model(model, config)
    dqa.calibrate(quantized, images, batch_size=1, verbose=0)
    parsed = flatbuffer.parse(convert(quantized, "float32"))
    flatbuffer.attach_metadata(
        parsed, metadata.describe(quantized, "float32", None, None)
    )
    builtin = flatbuffer.serialize(parsed)
    for kind in ("packed", "coded", "bytes"):
        stored = _as_bytes if kind == "bytes" else schedule
        with mock.patch.object(pack, "schedule", stored):
            data, report = pack.pack_regions(
                builtin,
                quantized,
                images,
                trusted=True,
                byte_input=ByteInput.of(None),
                byte_outputs=True,
                coded_skips=kind == "coded",
            )
        (folder / f"{name}.{kind}.tflite").write_bytes(data)
        print(name, kind, report, flush=True)


def _as_bytes(program, coded_skips, arena=None):
    """A plan that stores each code in a byte of its own."""
    from dqa_keras.export.plan.scheduling import schedule

    for tensor in program.tensors:
        tensor.packing = None
    return schedule(program, coded_skips, arena)


def prepare(names: list[str], folder: Path) -> None:
    """Writes what is missing, each network in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not all((folder / f"{name}.{kind}.tflite").exists() for kind in KINDS):
            command = [sys.executable, "-m", __name__, name, str(folder)]
            # The module is found where this one was.
            paths = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            }
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=paths)


def parser(description: str, names: tuple[str, ...] = NAMES) -> argparse.ArgumentParser:
    """The flags that benchmarks of these networks have."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--json", type=arguments.output, help="file for the figures")
    flags.add_argument("--networks", nargs="*", default=list(names), choices=names)
    flags.add_argument(
        "--folder",
        type=Path,
        default=Path("build/networks"),
        help="where the .tflite files are kept",
    )
    return flags


def is_packed(path: Path) -> bool:
    """Whether a file needs this project's runtime."""
    return path.name.endswith((".packed.tflite", ".coded.tflite", ".bytes.tflite"))


def interpreter(path: Path, threads: int = 1):
    """A LiteRT interpreter of one of the files, ready to be invoked on zeros."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from dqa_keras.export import load_packed

    if is_packed(path):
        runner = load_packed(path, num_threads=threads)
    else:
        runner = Interpreter(str(path), num_threads=threads)
    runner.allocate_tensors()
    detail = runner.get_input_details()[0]
    random = np.random.default_rng(0).random(detail["shape"])
    value = random * 100
    runner.set_tensor(detail["index"], value.astype(detail["dtype"]))
    return runner


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
