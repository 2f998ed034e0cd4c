"""Exports a calibrated Keras model as a `.tflite`.

With `mode="builtin"` the quantizers become a few element-wise ops with constant
operands, in the order that `dqa_keras.quantizers` prescribes, except that codes are
clipped before they are rounded. The bounds are whole numbers, so the codes are the
same, and where codes are unsigned the lower bound becomes a fused ReLU. Scaling then
moves into the weights around, see `dqa_keras.export.litert.scale_folding`; not into
float16 ones, whose range it might leave. The result runs on every LiteRT interpreter.
It simulates low-bit storage: activations are rounded to few values but still stored as
float32.

With `mode="packed"` parts of the model become ops that store activations packed and
compute with integers: see `dqa_keras.export.packed`.
"""

import dataclasses
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import keras
import numpy as np

from dqa_keras import files
from dqa_keras.backend import data_adapter
from dqa_keras.export.litert import (
    flatbuffer,
    float16,
    metadata,
    scale_folding,
    verification,
)
from dqa_keras.export.litert.interpreter import Runner
from dqa_keras.export.packed import pack
from dqa_keras.export.packed.pack import PackedReport
from dqa_keras.graph import hooks
from dqa_keras.layers import NoisyQuant, Quantizer, quantizer_layers

Weights = Literal["float32", "float16", "int8"]
Mode = Literal["builtin", "packed"]

# Stands for an unknown input size when the exported file is tried out.
_TRIAL_SIZE = 64

# Element-wise kernels run along the last axes that both operands share, and a run of
# few channels is mostly overhead: up to this many, constants are repeated along the
# width. With more, the file would grow for nothing. `benchmarks/cost.py` measures.
_FEW_CHANNELS = 64

# Weights become constants of the graph that goes to the converter: hundreds of
# variables take longer to save and load than the conversion itself. But a constant is
# copied some thirty times on its way, so one of this many values stays a variable.
_MANY_WEIGHTS = 2**18


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_tflite` wrote and checked.

    Args:
        path: String. The file.
        size: Integer. Bytes.
        ops: Dictionary from built-in op name to how often it occurs.
        quantizers: Integer. Quantizers whose codes were compared, all equal to the bit.
        max_difference: Float. Largest absolute difference between Keras' and LiteRT's
            outputs on the samples. Not zero for a deep network: the last bit of a
            convolution differs between engines and can flip a code.
        output_range: Float. Largest absolute output of Keras, to judge that by.
        packed: `PackedReport` of `mode="packed"`: what runs on packed activations and
            what does not, with the reason. `None` for built-in exports.
    """

    path: str
    size: int
    ops: dict[str, int]
    quantizers: int
    max_difference: float
    output_range: float
    packed: PackedReport | None = None


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    mode: Mode = "builtin",
    strict: bool = False,
    inputs: Literal["float32", "uint8"] = "float32",
    outputs: Literal["float32", "uint8"] = "float32",
    skips: Literal["raw", "coded"] = "raw",
    weights: Weights = "float32",
    samples: Any = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    labels: Sequence[str] | None = None,
) -> ExportReport:
    """Writes a calibrated model as a checked `.tflite` with its tables as metadata.

    The file takes one input at a time (batch 1). It is written only if it passes: it
    must hold built-in ops alone, and every quantizer in LiteRT must give the codes that
    Keras gives for the same input, to the bit. Then float32 weights take in the scaling
    before and behind quantizers, and clipping and rounding are compared once more; the
    last bit of what is rounded can change by that. A packed file is made of one that
    passed; its int8 weights move codes a little.

    Args:
        model: Keras model with calibrated quantizers.
        path: Path of the file to write; replaced whole or not at all.
        mode: `"builtin"`: built-in ops, runs on every interpreter. `"packed"`: stores
            activations in few bits while it runs, with int8 weights; needs
            `load_packed` or the runtime's delegate. Defaults to `"builtin"`.
        strict: Boolean. Whether a packed export fails if an op that computes on
            activations stays outside. Defaults to `False`.
        inputs: `"float32"`, or `"uint8"` for a packed model that takes whole numbers
            0..255: its input then takes a quarter of the memory. Defaults to
            `"float32"`.
        outputs: `"float32"`, or `"uint8"` for a packed model whose outputs come as
            codes with a scale and a zero point, a quarter of the memory too. They take
            the range that the outputs have on `samples`. Defaults to `"float32"`.
        skips: `"raw"`, or `"coded"` for a packed model: activations that wait for later
            layers are Huffman-coded too, where that makes the op's memory smaller.
            Their room is what calibration saw them take and 5 % more; if an input
            needs more, the rows that do not fit are allocated until the run ends, and
            the outputs stay the same. Takes time; needs LiteRT, or TensorFlow Lite
            2.7. Defaults to `"raw"`.
        weights: `"float32"`, `"float16"`, or `"int8"` (LiteRT's dynamic-range
            kernels). Defaults to `"float32"`.
        samples: A batch of inputs to check with. Defaults to four random ones. For a
            packed export give real ones: their range sets the 7-bit codes of what no
            quantizer rounds, a linear bottleneck for instance; without, such values
            take 16 bits.
        normalization: Mean and standard deviation a channel that the caller must apply
            to inputs; recorded in the metadata. Defaults to `None`.
        labels: Class labels, recorded in the metadata. Defaults to `None`.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: If Keras runs on another backend than TensorFlow, an option is
            unknown or does not go with the mode, a layer is not calibrated, the path
            cannot be written, or `strict` and an op stays outside.
        OSError: If the model cannot be written, to the folder of temporary files for
            conversion or to its place: a full disk.
        RuntimeMissingError: If a packed export cannot be tried out because the runtime
            was not built.
        VerificationError: If the result has an op that is not built in, or its codes
            differ.

    Example:
    >>> import keras, numpy as np, tempfile
    >>> import dqa_keras as dqa
    >>> from dqa_keras.export import export_tflite, read_metadata
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ... ])
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    >>> x = np.random.default_rng(0).random((16, 8, 8, 1), np.float32)
    >>> dqa.calibrate(quantized, x, verbose=0)
    >>> path = tempfile.mkdtemp() + "/model.tflite"
    >>> export_tflite(quantized, path, samples=x[:2]).quantizers
    1
    >>> list(read_metadata(path).tables)
    ['conv_dqa']
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "export_tflite needs TensorFlow. Received: Keras on "
            f"{keras.backend.backend()}. Save the calibrated model with "
            "model.save('model.keras') and export that file under "
            "KERAS_BACKEND=tensorflow."
        )
    for name, value, allowed in (
        ("mode", mode, ("builtin", "packed")),
        ("inputs", inputs, ("float32", "uint8")),
        ("outputs", outputs, ("float32", "uint8")),
        ("skips", skips, ("raw", "coded")),
        ("weights", weights, ("float32", "float16", "int8")),
    ):
        if value not in allowed:
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, allowed))}. "
                f"Received: {name}={value!r}"
            )
    if mode == "packed" and weights != "float32":
        raise ValueError(
            "mode='packed' chooses its own int8 weights: leave weights at 'float32'. "
            f"Received: weights={weights!r}"
        )
    if mode != "packed" and strict:
        raise ValueError(f"strict=True needs mode='packed'. Received: mode={mode!r}")
    for name, value, usual in (
        ("inputs", inputs, "float32"),
        ("outputs", outputs, "float32"),
        ("skips", skips, "raw"),
    ):
        if mode != "packed" and value != usual:
            raise ValueError(
                f"{name}={value!r} needs mode='packed'. Received: {mode!r}"
            )
    if outputs == "uint8" and samples is None:
        raise ValueError(
            "outputs='uint8' needs samples, whose range the codes take. "
            "Received: samples=None"
        )
    entries = metadata.describe(model, weights, normalization, labels)
    trusted = samples is not None
    if samples is None:
        samples = _random_samples(model)
        if inputs == "uint8":
            samples = keras.tree.map_structure(
                lambda x: np.rint(np.clip(64 * x + 128, 0, 255)), samples
            )
    data_adapter.check_fit(model, samples)
    with files.replacing(path) as temporary:
        converted = convert(model, weights)
        unpacked = flatbuffer.unpack(converted)
        if weights == "float16":
            float16.halve_weights(unpacked)
        verification.check_ops(unpacked)
        names = [tensor.name for tensor in keras.tree.flatten(_inputs(model))]
        flatbuffer.sign(
            unpacked, {_input_name(i): name for i, name in enumerate(names)}
        )
        flatbuffer.attach(unpacked, entries)
        data = flatbuffer.pack(unpacked)
        compared = verification.check_codes(data, model, samples)
        if mode == "builtin" and weights == "float32":
            scale_folding.absorb_scales(unpacked)
            data = flatbuffer.pack(unpacked)
            verification.check_codes(data, model, samples)
        report = None
        run = Runner(data)
        if mode == "packed":
            data, report = pack.pack_regions(
                data,
                model,
                samples,
                trusted,
                byte_inputs=inputs == "uint8",
                byte_outputs=outputs == "uint8",
                coded_skips=skips == "coded",
            )
            pack.check_complete(report, strict)
            run = Runner(data, delegates=[pack.delegate()])
            unpacked = flatbuffer.unpack(data)
        difference, output_range = verification.compare_outputs(run, model, samples)
        temporary.write_bytes(data)
    return ExportReport(
        path=str(path),
        size=len(data),
        ops=dict(Counter(flatbuffer.op_names(unpacked))),
        quantizers=compared,
        max_difference=difference,
        output_range=output_range,
        packed=report,
    )


def _random_samples(model: keras.Model) -> Any:
    random = np.random.default_rng(0)

    def sample(tensor: Any) -> Any:
        shape = [4, *(size or _TRIAL_SIZE for size in tensor.shape[1:])]
        if "float" in tensor.dtype:
            return random.normal(size=shape).astype(tensor.dtype)
        return random.integers(0, 2, shape).astype(tensor.dtype)

    return keras.tree.map_structure(sample, _inputs(model))


def _inputs(model: keras.Model) -> Any:
    """The symbolic inputs, in the structure that the model is called with."""
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"model {model.name!r} has no declared inputs: wrap it in "
            "keras.Model(inputs, model(inputs)) first."
        )
    inputs = getattr(model, "_inputs_struct", model.inputs)
    return inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs


def _constant_quantizer(layer: Quantizer, scope: str) -> Any:
    """The layer's arithmetic with its state as constants, for any input."""
    import tensorflow as tf

    table = layer.table()
    q_min, q_max = (np.asarray(bound) for bound in layer.code_range())
    noise = np.asarray(layer.noise) if isinstance(layer, NoisyQuant) else None

    def quantize(inputs: Any) -> Any:
        x = tf.cast(inputs, tf.float32)

        def constant(values: np.ndarray) -> np.ndarray:
            if np.all(values == values[0]):
                return values[:1]
            width = x.shape[-2] if x.shape.rank > 2 else None
            if width is None or values.size > _FEW_CHANNELS:
                return values
            return np.tile(values, (width, 1))

        if noise is not None:
            x = x + constant(noise)
        with tf.name_scope(scope):
            v = x * constant(table.inverse_scale)
            v = tf.maximum(v, constant(q_min)) if table.signed else tf.nn.relu(v)
            y = tf.round(tf.minimum(v, constant(q_max))) * constant(table.scale)
        if noise is not None:
            y = y - constant(noise)
        return tf.cast(y, layer.compute_dtype)

    return quantize


def _input_name(index: int) -> str:
    """Name of an input's tensor: TensorFlow refuses some names that Keras allows."""
    return f"quantized_model_input_{index}"


@contextmanager
def _without_advice() -> Iterator[None]:
    """TensorFlow keeps to itself what it does with a folder that is gone at once."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def convert(model: keras.Model, weights: Weights) -> bytes:
    """A model, quantized or not, as the converter writes it: no metadata, no checks."""
    import tensorflow as tf

    layers = quantizer_layers(model)
    quantize = {
        layer.name: _constant_quantizer(layer, verification.scope(index))
        for index, layer in enumerate(layers)
    }
    inputs = _inputs(model)
    signature = [
        tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=_input_name(index))
        for index, tensor in enumerate(keras.tree.flatten(inputs))
    ]

    large, small = [], []
    for variable in model.variables:
        if np.prod(variable.shape) >= _MANY_WEIGHTS:
            large.append(variable.value)
        else:
            small.append((variable, np.asarray(variable)))

    def serve(*arrays: Any) -> Any:
        x = keras.tree.pack_sequence_as(inputs, list(arrays))
        constants = [(variable, tf.constant(value)) for variable, value in small]
        with (
            keras.StatelessScope(state_mapping=constants),
            hooks.hooked(layers, lambda layer, x: quantize[layer.name](x)),
        ):
            outputs = keras.tree.flatten(model(x, training=False))
        return {f"output_{index:04}": tensor for index, tensor in enumerate(outputs)}

    graph = tf.function(serve, input_signature=signature, autograph=False)
    module = tf.Module()
    module.large = large  # saves what is reachable
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        try:
            tf.saved_model.save(module, folder, graph.get_concrete_function())
        except tf.errors.OpError as error:  # how TensorFlow says that a disk is full
            raise OSError(
                f"cannot write the model to {folder} for conversion: {error.message}"
            ) from error
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if weights == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()
