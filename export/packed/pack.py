"""Exports a calibrated Keras model whose activations are stored packed while it runs.

Regions of the built-in export (see `dqa_keras.export.packed.partition`) become one
custom op `DQA` each; what lies around them stays ordinary LiteRT. `load_packed` runs
the file.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate
from numpy.typing import NDArray

from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.interpreter import Runner, images
from dqa_keras.export.litert.model_reader import ModelReader
from dqa_keras.export.packed import input_axes, io_types
from dqa_keras.export.packed.custom_op import OP_NAME, replace_regions
from dqa_keras.export.packed.lowering import lower
from dqa_keras.export.packed.node import Node, UnsupportedNode
from dqa_keras.export.packed.op_reader import read_nodes
from dqa_keras.export.packed.partition import Region, regions
from dqa_keras.export.packed.report import (
    PackedReport,
    RegionReport,
    multiplications,
    op_name,
    report_of,
)
from dqa_keras.export.plan import runtime
from dqa_keras.export.plan.encoding import decode
from dqa_keras.export.plan.program import Program
from dqa_keras.export.plan.records import Plan
from dqa_keras.export.plan.scheduling import Scheduled, least_arena, schedule
from dqa_keras.layers import quantizer_layers

Ranges = dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]


def pack_regions(
    data: bytes,
    model: keras.Model,
    samples: Any,
    trusted: bool,
    *,
    byte_input: io_types.ByteInput | None = None,
    byte_outputs: bool = False,
    coded_skips: bool = False,
    arena_kib: float | None = None,
) -> tuple[bytes, PackedReport]:
    """Replaces the regions of a built-in export by `DQA` ops.

    Args:
        data: Bytes of a built-in export of `model`.
        model: The calibrated Keras model.
        samples: A batch of inputs: for the ranges of values that no quantizer rounds.
        trusted: Boolean. Whether the samples are real data.
        byte_input: `ByteInput` of a model that takes uint8: what the bytes mean.
            Defaults to `None`: it takes float32.
        byte_outputs: Boolean. Whether it gives uint8 codes of its outputs, whose scale
            and zero point take the samples' range. Defaults to `False`.
        coded_skips: Boolean. Whether to Huffman-code skips where that saves memory; the
            data must hold the metadata `DQA_RESIDUAL` then. Defaults to `False`.
        arena_kib: Float. KiB that the arenas of all regions may take together: the
            fastest plans within them. Defaults to `None`: small arenas that cost little
            time.

    Returns:
        The bytes of the new file, and a `PackedReport`.

    Raises:
        ValueError: If `arena_kib` is less than the model needs.
    """
    parsed = flatbuffer.parse(data)
    reader = ModelReader(parsed, quantizer_layers(model))
    nodes, reasons = read_nodes(reader)
    everything = multiplications(parsed)
    graph = reader.graph
    outside = {op_name(graph, graph.ops[i]): reason for i, reason in reasons.items()}
    ranges = _ranges(data, parsed, regions(reader, nodes), samples)
    codes = io_types.output_codes(data, samples) if byte_outputs else []
    results = {
        tensor: code
        for end, code in zip(parsed.subgraphs[0].outputs, codes, strict=False)
        for tensor in io_types.before_moves(reader.graph, int(end))
    }
    taken = {} if byte_input is None else io_types.moved_inputs(reader)
    lowered, refused = _lower_all(
        reader,
        nodes,
        lambda region: lower(
            reader,
            region,
            ranges,
            trusted,
            {
                tensor: byte_input.for_channels(reader.shape(tensor)[2], taken[tensor])
                for tensor in region.inputs
                if byte_input is not None and tensor in taken
            },
            results,
        ),
    )
    outside.update(
        (op_name(graph, graph.ops[node.ops[0]]), reason) for node, reason in refused
    )
    plans = _plan_all([program for _, program in lowered], coded_skips, arena_kib)
    planned: list[tuple[Region, Plan, bytes]] = []
    reports = []
    for (region, program), (plan, constants) in zip(lowered, plans, strict=True):
        planned.append((region, plan, constants))
        reports.append(
            RegionReport(
                nodes=len(region.nodes),
                quantizers=len(program.quantized),
                products=sum(op.products for op in program.operations),
                arena=plan.arena,
                constants=len(constants),
                coded=sum(t.storage != "raw" for t in plan.tables),
            )
        )
    replace_regions(parsed, planned)
    input_axes.follow_inputs(parsed)
    if byte_input is not None:
        io_types.take_bytes(parsed, OP_NAME)
    if byte_outputs:
        io_types.give_bytes(parsed, OP_NAME, codes)
    input_axes.guard_inputs(parsed, OP_NAME)
    report = report_of(parsed, tuple(reports), outside, everything)
    return flatbuffer.serialize(parsed), report


def programs_of(data: bytes, model: keras.Model, samples: Any) -> list[Program]:
    """The programs of the regions of a built-in export that takes and gives floats.

    Args:
        data: Bytes of a built-in export of `model`.
        model: The calibrated Keras model.
        samples: A batch of inputs: for the ranges of values that no quantizer rounds.
    """
    parsed = flatbuffer.parse(data)
    reader = ModelReader(parsed, quantizer_layers(model))
    nodes, _ = read_nodes(reader)
    ranges = _ranges(data, parsed, regions(reader, nodes), samples)
    lowered, _ = _lower_all(
        reader, nodes, lambda region: lower(reader, region, ranges, True, {}, {})
    )
    return [program for _, program in lowered]


def _lower_all(
    reader: ModelReader,
    nodes: list[Node],
    lowered_region: Callable[[Region], Program],
) -> tuple[list[tuple[Region, Program]], list[tuple[Node, str]]]:
    """Regions and their programs; a node that cannot be lowered splits its region."""
    refused: list[tuple[Node, str]] = []
    while True:
        lowered = []
        for region in regions(reader, nodes):
            try:
                lowered.append((region, lowered_region(region)))
            except UnsupportedNode as reason:
                nodes = [node for node in nodes if node.ops != reason.node.ops]
                refused.append((reason.node, str(reason)))
                break
        else:
            within = {id(node) for region, _ in lowered for node in region.nodes}
            refused += [
                (node, "no quantizer is near")
                for node in nodes
                if id(node) not in within
            ]
            return lowered, refused


def _plan_all(
    programs: list[Program], coded_skips: bool, arena_kib: float | None
) -> list[Scheduled]:
    """The plans of all regions, which together take at most so much memory."""
    if arena_kib is None:
        return [schedule(program, coded_skips) for program in programs]
    arena = int(1024 * arena_kib)
    smallest = [least_arena(program, coded_skips) for program in programs]
    least = sum(bytes_ for bytes_, _ in smallest)
    if least > arena:
        _, layer = max(smallest)
        raise ValueError(
            f"arena_kib must be at least {math.ceil(least / 1024)} for this model "
            f"(layer {layer} takes most). Received: arena_kib={arena_kib:g}"
        )
    plans = []
    for program, (own, _) in zip(programs, smallest, strict=True):
        plan = schedule(program, coded_skips, arena - least + own)
        arena -= plan[0].arena
        least -= own
        plans.append(plan)
    return plans


def _ranges(data: bytes, model: Any, regions: Sequence[Region], samples: Any) -> Ranges:
    """Smallest and largest value a channel of what no quantizer rounds."""
    outputs = set(map(int, model.subgraphs[0].outputs))
    tensors = sorted(
        node.output
        for region in regions
        for node in region.nodes
        if _may_be_kept(node) and node.output not in outputs
    )
    ranges: Ranges = {}
    # A few at a time: as outputs they all stay in memory.
    for first in range(0, len(tensors), 16):
        part = tensors[first : first + 16]
        probed = flatbuffer.parse(data)
        count = len(probed.subgraphs[0].outputs)
        flatbuffer.Graph(probed).add_outputs(part)
        run = Runner(flatbuffer.serialize(probed))
        for image in images(samples):
            for tensor, values in zip(part, run(image)[count:], strict=True):
                flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
                low, high = flat.min(axis=0), flat.max(axis=0)
                if tensor in ranges:
                    low = np.minimum(low, ranges[tensor][0])
                    high = np.maximum(high, ranges[tensor][1])
                ranges[tensor] = (low, high)
    return ranges


def _may_be_kept(node: Node) -> bool:
    return node.kind in (
        "conv", "depthwise", "transpose", "grouped", "add", "affine", "clamp",
        "average", "hard_swish", "function", "prelu", "multiply", "subtract", "same",
    )  # fmt: skip


def read_plans(data: bytes) -> list[tuple[Plan, bytes]]:
    """The plans of a packed file with their constants, in the order of their ops.

    Raises:
        MetadataError: If the file is damaged.
        PlanError: If a plan in it is damaged, or from a newer version.
    """
    model = flatbuffer.parse(data)
    with flatbuffer.reading():
        graph = flatbuffer.Graph(model)
        tensors = model.subgraphs[0].tensors

        def content(tensor: int) -> bytes:
            return bytes(model.buffers[tensors[tensor].buffer].data)

        plans = [
            (content(op.inputs[-2]), content(op.inputs[-1]))
            for op in graph.ops
            if graph.kind(op) == OP_NAME
        ]
    return [(decode(plan), constants) for plan, constants in plans]


def delegate() -> Any:
    """LiteRT's handle of the runtime.

    Raises:
        RuntimeMissingError: If it was not built.
    """
    return load_delegate(runtime.library_path())


def load_packed(path: str | os.PathLike, **options: Any) -> Interpreter:
    """A LiteRT interpreter of a packed file, with the runtime it needs.

    Args:
        path: Path of a file that `export_tflite(mode="packed")` wrote.
        **options: Further arguments of `ai_edge_litert.interpreter.Interpreter`.

    Returns:
        An `Interpreter`; call its `allocate_tensors()` as always.

    Raises:
        RuntimeMissingError: If the compiled runtime was not built, and how to get it.

    Example:
    >>> import keras, numpy as np, tempfile
    >>> import dqa_keras as dqa
    >>> from dqa_keras.export import export_tflite, load_packed
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(4, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ... ])
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    >>> x = np.random.default_rng(0).random((16, 8, 8, 1), np.float32)
    >>> dqa.calibrate(quantized, x, verbose=0)
    >>> path = tempfile.mkdtemp() + "/model.tflite"
    >>> report = export_tflite(quantized, path, mode="packed", samples=x)
    >>> report.ops, report.packed.outside
    ({'DQA': 1}, {})
    >>> interpreter = load_packed(path)
    >>> interpreter.allocate_tensors()
    >>> interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[:1])
    >>> interpreter.invoke()
    """
    delegates = [*options.pop("experimental_delegates", ()), delegate()]
    return Interpreter(str(path), experimental_delegates=delegates, **options)
