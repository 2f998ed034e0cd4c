"""Bytes instead of float32 values where a packed model begins and ends.

Ops that only move values do the same with bytes: what lies between an end of the model
and a packed region may be such ops.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.interpreter import Runner, images
from dqa_keras.export.litert.model_reader import ModelReader
from dqa_keras.export.plan.program import ByteCodes

# Ops that move values; further inputs of theirs are constants.
_MOVES = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"}

# How far float32 arithmetic may take a normalised byte from a whole number.
_ROUNDING = 0.01


@dataclasses.dataclass(frozen=True)
class ByteInput:
    """What the bytes of an input mean: `(byte - mean) / std`.

    Args:
        mean: Float array (1,) or (C,).
        std: Float array (1,) or (C,).
    """

    mean: NDArray[Any]
    std: NDArray[Any]

    @classmethod
    def of(cls, normalization: tuple[Any, Any] | None) -> "ByteInput":
        """What bytes mean with this normalization; `None`: they are the values."""
        mean, std = ([0.0], [1.0]) if normalization is None else normalization
        return cls(np.asarray(mean, np.float64), np.asarray(std, np.float64))

    @property
    def is_identity(self) -> bool:
        """Whether bytes are the values."""
        return not self.mean.any() and bool(np.all(self.std == 1))

    def values(self, data: Any) -> Any:
        """What a model takes instead of bytes, in their structure."""
        return keras.tree.map_structure(
            lambda x: ((x - self.mean) / self.std).astype(np.float32), data
        )

    def bytes_of(self, samples: Any) -> Any:
        """The inverse of `values`.

        Raises:
            ValueError: If samples do not stand for whole numbers 0..255.
        """
        return keras.tree.map_structure(self._bytes_of, samples)

    def for_channels(self, channels: int, are_kept: bool = True) -> "ByteInput":
        """A copy with a mean and a standard deviation for each of `channels`.

        Args:
            channels: Integer.
            are_kept: Boolean. Whether these are the channels of the input, in their
                order. Defaults to `True`.

        Raises:
            ValueError: If each channel of the input has a mean of its own, and these
                channels are others.
        """
        if self.mean.size > 1 and (self.mean.size != channels or not are_kept):
            raise ValueError(
                "normalization must be one number for all channels where inputs have "
                "different channels, or an op moves them in front of the packed part. "
                f"Received: {self.mean.size} numbers, for {channels} channels"
            )
        ones = np.ones(channels)
        return ByteInput(self.mean * ones, self.std * ones)

    def _bytes_of(self, x: Any) -> NDArray[np.uint8]:
        ours = self.for_channels(np.shape(x)[-1])
        values = np.asarray(x, np.float64) * ours.std + ours.mean
        whole = np.rint(values)
        if not np.all(np.abs(values - whole) <= _ROUNDING) or not np.all(
            (whole >= 0) & (whole <= 255)
        ):
            low, high = float(np.min(values)), float(np.max(values))
            if self.is_identity:
                raise ValueError(
                    "inputs='uint8' takes samples of whole numbers 0..255. Received: "
                    f"values in {low:.4g}..{high:.4g}, not all of them such. If the "
                    "model takes normalised images, leave the samples as they are and "
                    "give normalization=(mean, std) of the bytes: the file then takes "
                    "bytes and computes (byte - mean) / std itself"
                )
            raise ValueError(
                "inputs='uint8' takes samples that are (byte - mean) / std of whole "
                "numbers 0..255, with the mean and std of normalization. Received: "
                f"samples that stand for {low:.4g}..{high:.4g}, not all of them whole. "
                "Give mean and std in units of bytes, 255 times those of images in "
                "0..1, and samples as the model takes them"
            )
        return whole.astype(np.uint8)


class ByteRunner:
    """Runs a file that takes bytes on the samples of the model it came from.

    Args:
        run: `Runner` of the file.
        byte_input: `ByteInput`.
    """

    def __init__(self, run: Runner, byte_input: ByteInput) -> None:
        self._run = run
        self._byte_input = byte_input

    def __call__(self, x: Any) -> list[NDArray]:
        """The outputs, as of a `Runner`."""
        return self._run(self._byte_input.bytes_of(x))


def moved_inputs(reader: ModelReader) -> dict[int, bool]:
    """Tensors that hold a model's inputs, perhaps moved: whether channels stayed."""
    moved = dict.fromkeys(reader.inputs, True)
    waiting = list(moved)
    for tensor in waiting:
        for index in reader.consumers.get(tensor, []):
            op = reader.graph.ops[index]
            if reader.graph.kind(op) in _MOVES and int(op.inputs[0]) == tensor:
                target = int(op.outputs[0])
                moved[target] = moved[tensor] and _keeps_channels(reader, op)
                waiting.append(target)
    return moved


def _keeps_channels(reader: ModelReader, op: Any) -> bool:
    """Whether the last axis stays what it is."""
    if reader.graph.kind(op) == "TRANSPOSE":
        order = reader.constant(op.inputs[1]).reshape(-1)
        return bool(order[-1] == order.size - 1)
    sizes = [reader.sizes(int(t))[-1] for t in (op.inputs[0], op.outputs[0])]
    return sizes[0] == sizes[1]


def take_bytes(model: Any, packed_op: str) -> None:
    """Makes the inputs of a parsed model uint8.

    Args:
        model: `ModelT`.
        packed_op: Name of the op that can read bytes.

    Raises:
        ValueError: If an op that computes on floats reads one.
    """
    graph = flatbuffer.Graph(model)
    for end in map(int, model.subgraphs[0].inputs):
        tensors = [end]
        for tensor in tensors:
            readers = [op for op in graph.ops if tensor in op.inputs]
            kinds = {graph.kind(op) for op in readers}
            if not kinds or kinds - _MOVES - {packed_op}:
                raise ValueError(
                    "uint8 inputs must go straight into packed regions, or through ops "
                    f"that only move values. Received: input {graph.name(end)!r}, "
                    f"which {', '.join(sorted(kinds)) or 'no op'} reads"
                )
            tensors += [
                int(op.outputs[0]) for op in readers if graph.kind(op) in _MOVES
            ]
            model.subgraphs[0].tensors[tensor].type = schema.TensorType.UINT8


def output_codes(data: bytes, samples: Any) -> list[ByteCodes]:
    """Codes for the range that each output of a file has on the samples."""
    run = Runner(data)
    spans = [
        [(float(x.min()), float(x.max())) for x in run(image)]
        for image in images(samples)
    ]
    return [
        ByteCodes.of(min(low for low, _ in span), max(high for _, high in span))
        for span in zip(*spans, strict=True)
    ]


def before_moves(graph: flatbuffer.Graph, tensor: int) -> list[int]:
    """A tensor and what it is moved from, as long as nothing else reads that."""
    chain = [tensor]
    while True:
        makers = [op for op in graph.ops if chain[-1] in op.outputs]
        if len(makers) != 1 or graph.kind(makers[0]) not in _MOVES:
            return chain
        source = int(makers[0].inputs[0])
        if sum(source in op.inputs for op in graph.ops) != 1:
            return chain
        chain.append(source)


def give_bytes(model: Any, packed_op: str, codes: Sequence[ByteCodes]) -> None:
    """Makes the outputs of a parsed model uint8, with scale and zero point.

    Args:
        model: `ModelT`.
        packed_op: Name of the op that can write bytes.
        codes: Sequence of `ByteCodes`, one an output.

    Raises:
        ValueError: If another op makes one, or any op reads one.
    """
    graph = flatbuffer.Graph(model)
    ends = model.subgraphs[0]
    for end, code in zip(map(int, ends.outputs), codes, strict=True):
        chain = before_moves(graph, end)
        makers = [graph.kind(op) for op in graph.ops if chain[-1] in op.outputs]
        readers = [graph.kind(op) for op in graph.ops if end in op.inputs]
        if makers != [packed_op] or readers:
            raise ValueError(
                "uint8 outputs must come straight from packed regions, or through ops "
                "that only move values, and end there. "
                f"Received: output {graph.name(end)!r}, made by "
                f"{', '.join(makers) or 'no op'} and read by "
                f"{', '.join(readers) or 'none'}. End the model in front of such an op "
                "(a softmax, for instance), or leave outputs='float32'."
            )
        for tensor in chain:
            details = schema.QuantizationParametersT()
            details.scale, details.zeroPoint = [code.step], [code.zero]
            ends.tensors[tensor].type = schema.TensorType.UINT8
            ends.tensors[tensor].quantization = details
