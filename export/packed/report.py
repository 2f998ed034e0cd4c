"""What became of a model's ops: what runs packed, and what that leaves in LiteRT."""

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.litert import flatbuffer

# Ops that multiply by weights, and which of their tensors has the image that counts.
_MULTIPLYING = {
    "CONV_2D": "output", "DEPTHWISE_CONV_2D": "output", "FULLY_CONNECTED": "output",
    "CONV_3D": "output", "TRANSPOSE_CONV": "input", "BATCH_MATMUL": "output",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RegionReport:
    """One `DQA` op.

    Args:
        nodes: Integer. Operations it computes.
        quantizers: Integer. Quantizers among them.
        products: Integer. Its multiplications.
        arena: Integer. Bytes of memory besides its inputs, outputs and weights.
        constants: Integer. Bytes of its weights and arrays.
        coded: Integer. Tensors that are stored Huffman-coded.
    """

    nodes: int
    quantizers: int
    products: int
    arena: int
    constants: int
    coded: int = 0


@dataclasses.dataclass(frozen=True)
class PackedReport:
    """What became of a model's ops.

    Args:
        regions: Tuple of `RegionReport`.
        outside: Dictionary from the name of an op that stayed outside to the reason.
        share: Float in 0..1. The part of the model's multiplications that regions
            compute.
        float_tensors: Dictionary from the name of a float32 tensor that LiteRT keeps
            besides the model's inputs and outputs to its bytes, the largest first.
        largest_obstacle: String. The op outside that reads and writes most bytes of
            float32: its support would help most. Empty if there is none.

    Example:
    >>> report = PackedReport((), {"relu (SELECT)": "it broadcasts"}, 0.25,
    ...                       {"conv": 4096, "relu": 2048}, "relu (SELECT)")
    >>> print(report.summary())
    25.0 % of the multiplications in 0 regions; 2 float tensors left, the largest of \
4.0 KiB; support of relu (SELECT) would help most: it broadcasts
    """

    regions: tuple[RegionReport, ...]
    outside: dict[str, str]
    share: float = 0.0
    float_tensors: dict[str, int] = dataclasses.field(default_factory=dict)
    largest_obstacle: str = ""

    def summary(self) -> str:
        """One line that no share of multiplications alone can flatter."""
        count = len(self.regions)
        text = (
            # Rounded down: only all of them are 100 %.
            f"{np.floor(1000 * self.share) / 10:.1f} % of the multiplications in "
            f"{count} region{'' if count == 1 else 's'}; "
        )
        tensors = len(self.float_tensors)
        if not tensors:
            return text + "no float tensor left"
        largest = max(self.float_tensors.values())
        text += (
            f"{tensors} float tensor{'' if tensors == 1 else 's'} left, the largest of "
            f"{largest / 1024:.1f} KiB"
        )
        if self.largest_obstacle:
            text += (
                f"; support of {self.largest_obstacle} would help most: "
                f"{self.outside[self.largest_obstacle]}"
            )
        return text


def op_name(graph: flatbuffer.Graph, op: Any) -> str:
    """How a report calls an op."""
    return f"{graph.name(int(op.outputs[0])).split(';')[0]} ({graph.kind(op)})"


def multiplications(model: Any) -> int:
    """Products of activations and weights of the built-in ops of a parsed model."""
    graph = flatbuffer.Graph(model)
    tensors = model.subgraphs[0].tensors

    def sizes(tensor: int) -> list[int]:
        return [int(size) for size in tensors[tensor].shape]

    total = 0
    for op in graph.ops:
        side = _MULTIPLYING.get(graph.kind(op))
        if side is None:
            continue
        image = sizes(op.inputs[2] if side == "input" else op.outputs[0])
        kernel = sizes(op.inputs[1])
        if graph.kind(op) == "BATCH_MATMUL":
            total += int(np.prod(image)) * sizes(op.inputs[0])[-1]
        else:
            total += int(np.prod(image[:-1])) * int(np.prod(kernel))
    return total


def report_of(
    model: Any,
    regions: tuple[RegionReport, ...],
    outside: dict[str, str],
    everything: int,
) -> PackedReport:
    """The report on a parsed packed model.

    Args:
        model: `ModelT`, with its `DQA` ops.
        regions: Tuple of `RegionReport`.
        outside: Dictionary from names of ops outside to reasons.
        everything: Integer. `multiplications` of the model before.

    Returns:
        A `PackedReport`.
    """
    graph = flatbuffer.Graph(model)
    subgraph = model.subgraphs[0]
    ends = {int(tensor) for tensor in [*subgraph.inputs, *subgraph.outputs]}

    def floats(tensor: int) -> int:
        entry = subgraph.tensors[tensor]
        if tensor < 0 or entry.type != schema.TensorType.FLOAT32:
            return 0
        if graph.is_constant(tensor) or entry.shape is None:
            return 0
        return 4 * int(np.prod([int(size) for size in entry.shape]))

    left = {
        graph.name(tensor).split(";")[0]: floats(tensor)
        for op in graph.ops
        for tensor in map(int, op.outputs)
        if tensor not in ends and floats(tensor)
    }
    moved = {
        op_name(graph, op): sum(floats(int(t)) for t in [*op.inputs, *op.outputs])
        for op in graph.ops
    }
    known = [name for name in moved if name in outside]
    share = 1 - multiplications(model) / everything if everything else 1.0
    return PackedReport(
        regions,
        outside,
        share,
        dict(sorted(left.items(), key=lambda item: -item[1])),
        max(known, key=lambda name: moved[name], default=""),
    )


def check_complete(report: PackedReport, strict: bool) -> None:
    """Raises ValueError if nothing was packed, or `strict` and something was not."""
    if report.regions and not (strict and report.outside):
        return
    name, reason = next(
        iter(report.outside.items()), ("the model", "it has no quantizer")
    )
    rule = "strict: every op" if strict else "some op"
    found = f" ({report.summary()})" if report.regions else ""
    raise ValueError(
        f"{rule} must run on packed activations. Received: {name}: {reason}{found}"
    )
