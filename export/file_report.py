"""What a report can show of a `.tflite` without the Keras model it came from.

The metadata has the tables; a run in LiteRT with the inner tensors as outputs has the
values and codes of every quantizer.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras.analysis.accuracy import Tally
from dqa_keras.analysis.memory import Step, Timeline, schedule
from dqa_keras.analysis.storage import table_bits
from dqa_keras.calibration.histograms import histogram
from dqa_keras.calibration.observers import Observer, decibels
from dqa_keras.codec import sizes
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.export.litert import flatbuffer, verification
from dqa_keras.export.litert.interpreter import Runner
from dqa_keras.export.litert.metadata import read_metadata
from dqa_keras.export.litert.residual_table import MetadataError
from dqa_keras.export.packed import pack
from dqa_keras.graph.insertion import Skipped
from dqa_keras.report.findings import Findings, Layer, Scores

_IN_PLACE = {
    "ADD", "DIV", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MINIMUM",
    "MUL", "RELU", "RELU6", "RESHAPE", "ROUND", "SQUEEZE", "SUB", "TANH",
}  # fmt: skip
_MOVING = {
    "CONCATENATION", "MAX_POOL_2D", "PAD", "RESIZE_NEAREST_NEIGHBOR", "STRIDED_SLICE",
    "TRANSPOSE",
}  # fmt: skip

# Positions of each image that enter the histograms.
_POSITIONS = 128

_KERAS = "dqa report MODEL.keras shows this: it needs the Keras model."
_INSIDE = (
    "The DQA ops of a packed file do not show their activations; the built-in export "
    "of the same model does."
)


class _Site:
    """What is gathered at one quantizer."""

    def __init__(
        self, table: LayerTable, where: verification.Rounding, code_base: bool
    ) -> None:
        self.table, self.where, self._code_base = table, where, code_base
        self.bits = self.values = self.images = 0
        self.signal = self.noise = 0.0
        self.observer = Observer(table.mask.size)

    def add(self, values: NDArray[np.float32], codes: NDArray[np.float32]) -> None:
        """Takes in one image: what was in front of the quantizer, and its codes."""
        table = self.table
        if self.where.upper is not None:
            values = np.minimum(values, self.where.upper)
        x = values * table.scale if self.where.folded else values
        self.signal += float(np.sum(x.astype(np.float64) ** 2))
        error = x.astype(np.float64) - codes * table.scale
        self.noise += float(np.sum(error**2))
        rows = x.reshape(-1, x.shape[-1])
        some = rows[:: -(-len(rows) // _POSITIONS)]
        self.observer.update(some, rows.min(0), rows.max(0))
        self.bits += self._stored(codes)
        self.values += codes.size
        self.images += 1

    def _stored(self, values: NDArray[np.float32]) -> int:
        """Bits that the codec writes for these codes, the table included."""
        table = self.table
        codes = values.astype(np.int32)
        residuals = (codes & (2**table.extra_bits - 1)).astype(np.uint8)
        residuals = residuals[..., table.mask if table.extra_bits else slice(0)]
        rows = codes.shape[1] if codes.ndim > 2 else 1
        base = None
        if self._code_base:
            base = np.where(table.mask, codes >> table.extra_bits, codes)
            base = (base & (2**table.bits - 1)).astype(np.uint8).reshape(1, rows, -1)
        strips = sizes.strips_sizes(
            residuals.reshape(1, rows, residuals.size // rows),
            table,
            codes.size // rows,
            base,
        )
        return 8 * int(strips.sum()) + table_bits(table, self._code_base)

    def layer(self) -> Layer:
        """What was measured."""
        return Layer(
            table=self.table,
            activations=self.values // self.images,
            stored_bits=self.bits / self.values,
            sqnr=decibels(self.signal, self.noise),
            histogram=histogram(self.table, self.observer),
        )


def _short(name: str) -> str:
    """The layer and what it does, out of a tensor's name."""
    return "/".join(name.split(";")[0].split("/")[-2:])


def _timeline(model: Any, stored_bits: Mapping[int, float]) -> Timeline:
    graph = flatbuffer.Graph(model)
    tensors = model.subgraphs[0].tensors

    def variable(keys: Iterable[int]) -> list[int]:
        return [int(k) for k in keys if k >= 0 and not graph.is_constant(k)]

    steps = [
        Step(
            _short(graph.name(op.outputs[0])) or graph.kind(op),
            variable(op.inputs),
            [int(key) for key in op.outputs],
            in_place=graph.kind(op) in _IN_PLACE,
            moves=graph.kind(op) in _MOVING,
        )
        for op in graph.ops
    ]
    values = {
        number: int(np.prod(tensor.shape)) if tensor.shape is not None else 1
        for number, tensor in enumerate(tensors)
    }
    ends = model.subgraphs[0]
    inputs, outputs = map(int, ends.inputs), map(int, ends.outputs)
    return schedule(steps, values, stored_bits, list(inputs), list(outputs))


def _images(test: Any) -> Iterable[tuple[Any, Any]]:
    """Images one by one, each as a batch, with labels or None."""
    for batch in test:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        for row in range(len(x)):
            label = None if y is None else np.asarray(y[row : row + 1])
            yield np.asarray(x[row : row + 1]), label


def _check_size(x: NDArray, shape: tuple[int | None, ...]) -> None:
    """Refuses what LiteRT would resize the network for: a report on another one."""
    if len(x.shape) != len(shape) or any(
        wanted not in (None, size)
        for wanted, size in zip(shape[1:], x.shape[1:], strict=True)
    ):
        raise ValueError(
            f"images must have the shape of the file's input, {shape[1:]}. "
            f"Received: {x.shape[1:]}. Resize them, or export the model for that size."
        )


def examine_tflite(path: str | os.PathLike, test: Any) -> Findings:
    """Measures what a report can show of an exported file, in LiteRT.

    Args:
        path: Path of a `.tflite` that `export_tflite` wrote.
        test: Batches of (x, y), or of x alone.

    Returns:
        `Findings`; `.absent` says what needs the Keras model.

    Raises:
        MetadataError: If the file is not one of ours, or is damaged.
        RuntimeMissingError: If a packed file cannot be run here.
        ValueError: If an image is of another size than the file's input.
    """
    shape = input_shape(path)
    metadata = read_metadata(path)
    tables = metadata.tables
    data = Path(path).read_bytes()
    model = flatbuffer.parse(data)
    is_packed = pack.OP_NAME in flatbuffer.op_names(model)
    sites = []
    if not is_packed:
        graph = flatbuffer.Graph(model)
        named = list(tables.values())
        coded = [
            layer["config"].get("entropy") == "all"
            for layer in metadata.config["layers"]
        ]
        sites = [
            _Site(named[where.number], where, coded[where.number])
            for where in verification.roundings(graph)
        ]
        graph.add_outputs([t for s in sites for t in (s.where.inputs, s.where.codes)])
    run = Runner(
        flatbuffer.serialize(model) if sites else data,
        delegates=[pack.delegate()] if is_packed else [],
    )
    tally: Tally | None = None
    images = 0
    for x, y in tqdm(_images(test), desc="LiteRT", unit="image", disable=None):
        _check_size(x, shape)
        first, *rest = run(x)
        probes = rest[len(rest) - 2 * len(sites) :]
        for site, values, codes in zip(sites, probes[::2], probes[1::2], strict=True):
            site.add(values, codes)
        if y is not None:
            tally = tally or Tally(first.shape[-1])
            tally.add(first, y)
        images += 1
    measured = {site.table.name: site.layer() for site in sites}
    unseen = [name for name in tables if name not in measured]
    findings = Findings(
        name=f"{metadata.config['model']} ({os.path.basename(path)})",
        layers=[
            measured.get(name, Layer(table, int(np.prod(table.shape))))
            for name, table in tables.items()
        ],
        scores=None,
        timeline=None,
        output_sqnr=None,
        skipped=tuple(Skipped(**skip) for skip in metadata.config["skipped"]),
        absent=_absent(is_packed, unseen),
        notes=(f"Everything: {images:,} images in LiteRT, one at a time.",),
    )
    timeline = None
    if not is_packed:
        stored = {s.where.codes: s.bits / s.values for s in sites}
        timeline = _timeline(flatbuffer.parse(data), stored)
    scores = None
    if tally:
        name = "mean IoU (%)" if tally.dense else "accuracy (%)"
        scores = Scores(name, images, {}, (findings.stored_bits, tally.percent()), None)
    return dataclasses.replace(findings, scores=scores, timeline=timeline)


def _absent(is_packed: bool, unseen: list[str]) -> dict[str, str]:
    absent = {
        "scores": f"Not here: direct quantization of the same network. {_KERAS}",
        "errors": f"Not here: what each layer alone does to the output. {_KERAS}",
        "choices": f"Not here: the plans that an export chooses among. {_KERAS}",
        "channels": f"Not here: the scores that channels were ranked by. {_KERAS}",
    }
    if is_packed:
        absent["layers"] = f"Not here: stored bits and SQNR. {_INSIDE}"
        absent["errors"] = absent["histograms"] = f"Not here. {_INSIDE}"
        absent["memory"] = (
            f"Not here. {_INSIDE} dqa inspect --plan prints what its ops keep."
        )
    elif unseen:
        absent["layers"] = (
            f"{', '.join(unseen)}: computed once with a layer that is alike, and shown "
            "there."
        )
    return absent


def input_shape(path: str | os.PathLike) -> tuple[int | None, ...]:
    """Shape of a file's only input, batch axis included; None where a size is open.

    Raises:
        MetadataError: If the file is not one of ours, or is damaged.
        ValueError: If it has several inputs.
    """
    graph = _graph(path)
    if len(graph.inputs) != 1:
        raise ValueError(f"{path} has {len(graph.inputs)} inputs: a report handles one")
    return _shape(graph.tensors[graph.inputs[0]])


def output_shape(path: str | os.PathLike) -> tuple[int | None, ...]:
    """The same of a file's first output, whose scores labels are compared with.

    Raises:
        MetadataError: If the file is not one of ours, or is damaged.
    """
    graph = _graph(path)
    return _shape(graph.tensors[graph.outputs[0]])


def _graph(path: str | os.PathLike) -> Any:
    read_metadata(path)
    try:
        return flatbuffer.parse(Path(path).read_bytes()).subgraphs[0]
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}") from error


def _shape(tensor: Any) -> tuple[int | None, ...]:
    signature = tensor.shapeSignature
    shape = tensor.shape if signature is None or len(signature) == 0 else signature
    return tuple(int(size) if size > 0 else None for size in shape)
