"""Exports a calibrated Keras model as a `.tflite`.

Five steps: check the arguments, convert, compare codes with Keras', fold scales into
weights (`mode="builtin"`) or pack (`mode="packed"`), compare outputs.

With `mode="builtin"` the quantizers become a few element-wise ops, see
`dqa_keras.export.litert.conversion`. Scaling then moves into the weights around, see
`dqa_keras.export.litert.scale_folding`; not into float16 ones, whose range it might
leave. The result runs on every LiteRT interpreter. It simulates low-bit storage:
activations are rounded to few values but still stored as float32.

With `mode="packed"` parts of the model become ops that store activations packed and
compute with integers: see `dqa_keras.export.packed`.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
from numpy.typing import NDArray

from dqa_keras import files
from dqa_keras.export.litert import (
    flatbuffer,
    float16,
    metadata,
    scale_folding,
    task_metadata,
    verification,
)
from dqa_keras.export.litert import samples as trial_inputs
from dqa_keras.export.litert.annotations import checked_labels, checked_normalization
from dqa_keras.export.litert.biases import widen_biases
from dqa_keras.export.litert.conversion import (
    Weights,
    convert,
    input_name,
    input_names,
    input_shapes,
    open_size,
    output_names,
)
from dqa_keras.export.litert.float32 import computing_in_float32
from dqa_keras.export.litert.interpreter import Runner
from dqa_keras.export.options import Mode, Options
from dqa_keras.export.packed import io_types, pack
from dqa_keras.export.packed.io_types import ByteInput
from dqa_keras.export.packed.report import PackedReport, check_complete


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
        agreement: Float in 0..1. Share of the samples, or of their pixels, for which
            the largest output is the same in Keras and LiteRT. `None` for outputs of
            one value.
        packed: `PackedReport` of `mode="packed"`: what runs on packed activations and
            what does not, with the reason. `None` for built-in exports.
    """

    path: str
    size: int
    ops: dict[str, int]
    quantizers: int
    max_difference: float
    output_range: float
    agreement: float | None
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
    arena_kib: float | None = None,
    weights: Weights = "float32",
    samples: Any = None,
    input_shape: Any = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    labels: Sequence[str | int] | None = None,
) -> ExportReport:
    """Writes a calibrated model as a checked `.tflite` with its tables as metadata.

    The file takes one input at a time (batch 1). It is written only if it passes: it
    must hold built-in ops alone, and every quantizer in LiteRT must give the codes that
    Keras gives for the same input, to the bit. Then float32 weights take in the scaling
    before and after quantizers, and clipping and rounding are compared once more; the
    last bit of what is rounded can change by that. A packed file is made of one that
    passed; its int8 weights move codes a little.

    A built-in model of an image (3 or 1 channels), given normalization and labels, also
    gets the metadata that Task Library and ML Kit ask for.

    Args:
        model: Keras model with calibrated quantizers.
        path: Path of the file to write; replaced whole or not at all.
        mode: `"builtin"`: built-in ops, runs on every interpreter. `"packed"`: stores
            activations in few bits while it runs, with int8 weights; needs
            `load_packed` or the runtime's delegate. Defaults to `"builtin"`.
        strict: Boolean. Whether a packed export fails if an op that computes on
            activations stays outside; the message says which share of the
            multiplications runs packed, in how many regions, and which float tensors
            are left. Defaults to `False`.
        inputs: `"float32"`, or `"uint8"` for a packed model that takes bytes: its
            input then takes a quarter of the memory. If the model takes normalised
            images, give `normalization` as well. Defaults to `"float32"`.
        outputs: `"float32"`, or `"uint8"` for a packed model whose outputs come as
            codes with a scale and a zero point, a quarter of the memory too. They take
            the range that the outputs have on `samples`. Defaults to `"float32"`.
        skips: `"raw"`, or `"coded"` for a packed model: activations that wait for later
            layers are Huffman-coded too, where that makes the op's memory smaller.
            Their room is what calibration saw them take and 5 % more; if an input
            needs more, the rows that do not fit are allocated until the run ends, and
            the outputs stay the same. Takes time; needs LiteRT, or TensorFlow Lite
            2.7. Defaults to `"raw"`.
        arena_kib: Float. KiB of memory that a packed model's ops may take besides input
            and output, on one thread: the file runs as fast as they allow. Defaults to
            `None`: little memory at little cost of time.
        weights: `"float32"`, `"float16"`, or `"int8"` (LiteRT's dynamic-range
            kernels). Defaults to `"float32"`.
        samples: A batch of inputs to check with, as the Keras model takes them: with
            `inputs="uint8"` whole numbers 0..255, or with `normalization` what
            `(byte - mean) / std` makes of such. Defaults to four random ones. For a
            packed export give real ones: their range sets the 7-bit codes of what no
            quantizer rounds, a linear bottleneck for instance; without, such values
            take 16 bits. A file of open sizes is checked on twice their size as well.
        input_shape: Tuple of integers, the size of the images that the file takes,
            without the batch axis: for a model that leaves sizes open. A list of such
            tuples for several inputs. Packed files need it then. Defaults to `None`.
        normalization: Pair of lists, means and standard deviations, that the caller
            must apply to inputs: one number for all channels, or one for each.
            Recorded in the metadata. With `inputs="uint8"` the file applies them: it
            takes bytes and computes `(byte - mean) / std` itself, so they are in
            units of bytes, `([127.5], [127.5])` for values in -1..1; the metadata then
            say that the caller must apply nothing. Defaults to `None`.
        labels: List of class labels, text or whole numbers, one line each: as many as
            the output has channels. Recorded in the metadata. Defaults to `None`.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: If Keras runs on another backend than TensorFlow, an option is
            unknown or does not go with the mode, samples do not stand for bytes, a
            layer is not calibrated, the path cannot be written, the model needs more
            than `arena_kib`, or `strict` and an op stays outside.
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
    options = Options(mode, strict, inputs, outputs, skips, weights, arena_kib)
    options.check(samples)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"model must be a Keras model. Received: {type(model).__name__}"
        )
    shapes = input_shapes(model, input_shape)  # refuses a model without inputs
    if mode == "packed":
        _check_fixed(model, shapes)
        pack.delegate()  # the last step needs it: better to know now
    with computing_in_float32(model):
        byte_input = None
        if options.takes_bytes:
            checked = checked_normalization(model, normalization)
            byte_input = io_types.ByteInput.of(checked)
            normalization = None if checked is None else ([0.0], [1.0])
        entries = metadata.describe(model, weights, normalization, labels)
        task_labels = _add_task_metadata(entries, model, mode, normalization, labels)
        are_real = samples is not None
        if samples is None:
            samples = trial_inputs.random(model, shapes, whole=options.takes_bytes)
            if byte_input is not None:
                samples = byte_input.values(samples)
        else:
            samples = trial_inputs.checked(model, samples, shapes)
            if byte_input is not None:
                byte_input.bytes_of(samples)  # refuses what is none
        larger = trial_inputs.of_another_size(model, samples, shapes)
        trials = [samples] if larger is None else [samples, larger]
        with files.replacing(path) as temporary:
            parsed = _converted(model, weights, input_shape, entries)
            data = flatbuffer.serialize(parsed)
            for trial in trials:
                compared = verification.check_codes(data, model, trial)
            if options.folds_scales:
                data = _with_scales_folded(parsed, model, trials)
            report = None
            if mode == "packed":
                data, report = _packed(
                    data, model, samples, are_real, options, byte_input
                )
            if task_labels is not None:
                data = task_metadata.with_labels(data, task_labels)
            run = _runner(data, mode, byte_input)
            comparisons = [
                verification.compare_outputs(run, model, trial) for trial in trials
            ]
            temporary.write_bytes(data)
    return ExportReport(
        path=str(path),
        size=len(data),
        ops=dict(Counter(flatbuffer.op_names(flatbuffer.parse(data)))),
        quantizers=compared,
        max_difference=max(one.difference for one in comparisons),
        output_range=max(one.output_range for one in comparisons),
        agreement=_agreement(comparisons),
        packed=report,
    )


def _agreement(comparisons: list[verification.OutputComparison]) -> float | None:
    decisions = sum(one.decisions for one in comparisons)
    if not decisions:
        return None
    return sum(one.agreed for one in comparisons) / decisions


def _add_task_metadata(
    entries: dict[str, bytes],
    model: keras.Model,
    mode: Mode,
    normalization: Any,
    labels: Any,
) -> list[str] | None:
    """Adds what Task Library asks for, where it serves; labels that go behind."""
    texts = checked_labels(model, labels)
    scaling = checked_normalization(model, normalization)
    serves = mode == "builtin" and task_metadata.takes_an_image(model)
    if not serves or texts is None or scaling is None:
        return None
    entries[task_metadata.NAME] = task_metadata.describe(model, scaling, texts)
    return texts


def _check_fixed(model: keras.Model, shapes: list[tuple[int | None, ...]]) -> None:
    """Raises ValueError if a size is not known: a plan is for one."""
    left_open = open_size(model, shapes)
    if left_open is not None:
        raise ValueError(
            f"mode='packed' needs inputs of a fixed size. Received: {left_open}"
        )


def _converted(
    model: keras.Model,
    weights: Weights,
    input_shape: Any,
    entries: Mapping[str, bytes],
) -> Any:
    """The model as a parsed `.tflite` of built-in ops, with signature and metadata."""
    parsed = flatbuffer.parse(convert(model, weights, input_shape))
    widen_biases(parsed)
    if weights == "float16":
        float16.halve_weights(parsed)
    verification.check_ops(parsed)
    inputs = {input_name(i): name for i, name in enumerate(input_names(model))}
    flatbuffer.set_signature(parsed, inputs, output_names(model))
    flatbuffer.attach_metadata(parsed, entries)
    return parsed


def _with_scales_folded(
    parsed: Any, model: keras.Model, trials: Sequence[Any]
) -> bytes:
    """The file once scales went into weights, its codes compared once more."""
    scale_folding.fold_scales(parsed)
    data = flatbuffer.serialize(parsed)
    for samples in trials:
        verification.check_codes(data, model, samples)
    return data


def _packed(
    data: bytes,
    model: keras.Model,
    samples: Any,
    are_real: bool,
    options: Options,
    byte_input: ByteInput | None,
) -> tuple[bytes, PackedReport]:
    """The file with what can be packed in `DQA` ops."""
    data, report = pack.pack_regions(
        data,
        model,
        samples,
        are_real,
        byte_input=byte_input,
        byte_outputs=options.gives_bytes,
        coded_skips=options.skips == "coded",
        arena_kib=options.arena_kib,
    )
    check_complete(report, options.strict)
    return data, report


def _runner(
    data: bytes, mode: Mode, byte_input: ByteInput | None
) -> Callable[[Any], list[NDArray]]:
    run = Runner(data, delegates=[pack.delegate()] if mode == "packed" else [])
    return run if byte_input is None else io_types.ByteRunner(run, byte_input)
