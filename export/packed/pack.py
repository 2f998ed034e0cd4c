"""Exports a calibrated Keras model whose activations are stored packed while it runs.

Regions of the built-in export (see `dqa_keras.export.packed.partition`) become one
custom op `DQA` each; what lies around them stays ordinary LiteRT. `load_packed` runs
the file.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate
from numpy.typing import NDArray

from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.interpreter import Runner, images
from dqa_keras.export.litert.model_reader import Node, Unsupported
from dqa_keras.export.packed import io_types
from dqa_keras.export.packed.lowering import lower
from dqa_keras.export.packed.op_reader import Reader
from dqa_keras.export.packed.partition import Region, regions
from dqa_keras.export.plan import runtime
from dqa_keras.export.plan.encoding import decode, encode
from dqa_keras.export.plan.program import ByteCodes, Program
from dqa_keras.export.plan.records import Plan, Storage
from dqa_keras.export.plan.scheduling import schedule
from dqa_keras.layers import quantizer_layers

OP_NAME = "DQA"

Ranges = dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]


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
    """

    regions: tuple[RegionReport, ...]
    outside: dict[str, str]


def pack_regions(
    data: bytes,
    model: keras.Model,
    samples: Any,
    trusted: bool,
    *,
    packed: bool = True,
    byte_inputs: bool = False,
    byte_outputs: bool = False,
    coded_skips: bool = False,
) -> tuple[bytes, PackedReport]:
    """Replaces the regions of a built-in export by `DQA` ops.

    Args:
        data: Bytes of a built-in export of `model`.
        model: The calibrated Keras model.
        samples: A batch of inputs: for the ranges of values that no quantizer rounds.
        trusted: Boolean. Whether the samples are real data.
        packed: Boolean. Whether stored codes are packed, or take a byte each.
            Defaults to `True`.
        byte_inputs: Boolean. Whether the model takes whole numbers 0..255 as uint8.
            Defaults to `False`.
        byte_outputs: Boolean. Whether it gives uint8 codes of its outputs, whose scale
            and zero point take the samples' range. Defaults to `False`.
        coded_skips: Boolean. Whether to Huffman-code skips where that saves memory; the
            data must hold the metadata `DQA_RESIDUAL` then. Defaults to `False`.

    Returns:
        The bytes of the new file, and a `PackedReport`.
    """
    parsed = flatbuffer.parse(data)
    reader = Reader(parsed, quantizer_layers(model))
    nodes, reasons = reader.nodes()
    outside = {_op_name(reader, index): reason for index, reason in reasons.items()}
    ranges = _ranges(data, parsed, regions(reader, nodes), samples)
    codes = io_types.output_codes(data, samples) if byte_outputs else []
    results = dict(zip(map(int, parsed.subgraphs[0].outputs), codes, strict=False))
    lowered, refused = _lower_all(reader, nodes, ranges, trusted, results)
    outside.update((_op_name(reader, node.ops[0]), reason) for node, reason in refused)
    planned: list[tuple[Region, Plan, bytes]] = []
    reports = []
    for region, program in lowered:
        if byte_inputs:
            model_inputs = set(map(int, parsed.subgraphs[0].inputs))
            program.bytes = {
                number
                for number, tensor in enumerate(region.inputs)
                if tensor in model_inputs
            }
        if not packed:
            _unpack_stores(program)
        plan, constants = schedule(program, coded_skips)
        planned.append((region, plan, constants))
        reports.append(
            RegionReport(
                nodes=len(region.nodes),
                quantizers=len(program.quantized),
                products=sum(op.products for op in program.operations),
                arena=plan.arena,
                constants=len(constants),
                coded=sum(t.storage != Storage.RAW for t in plan.tables),
            )
        )
    _replace(parsed, planned)
    if byte_inputs:
        io_types.take_bytes(parsed, OP_NAME)
    if byte_outputs:
        io_types.give_bytes(parsed, OP_NAME, codes)
    return flatbuffer.serialize(parsed), PackedReport(tuple(reports), outside)


def _lower_all(
    reader: Reader,
    nodes: list[Node],
    ranges: Ranges,
    trusted: bool,
    results: Mapping[int, ByteCodes],
) -> tuple[list[tuple[Region, Program]], list[tuple[Node, str]]]:
    """Regions and their programs; a node that cannot be lowered splits its region."""
    refused: list[tuple[Node, str]] = []
    while True:
        lowered = []
        for region in regions(reader, nodes):
            try:
                lowered.append(
                    (region, lower(reader, region, ranges, trusted, results))
                )
            except Unsupported as reason:
                if reason.node is None:
                    raise
                nodes = [node for node in nodes if node is not reason.node]
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


def _op_name(reader: Reader, index: int) -> str:
    op = reader.graph.ops[index]
    name = reader.graph.name(int(op.outputs[0])).split(";")[0]
    return f"{name} ({reader.graph.kind(op)})"


def _unpack_stores(program: Program) -> None:
    for tensor in program.tensors:
        tensor.packing = None


def _ranges(data: bytes, model: Any, found: Sequence[Region], samples: Any) -> Ranges:
    """Smallest and largest value a channel of what no quantizer rounds."""
    outputs = set(map(int, model.subgraphs[0].outputs))
    tensors = sorted(
        node.output
        for region in found
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
        "conv", "depthwise", "transpose", "add", "affine", "clamp", "average",
    )  # fmt: skip


def _replace(model: Any, planned: Sequence[tuple[Region, Plan, bytes]]) -> None:
    """Puts `DQA` ops where regions were, in an order in which ops can run."""
    if not planned:
        return
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = OP_NAME.encode()
    model.operatorCodes.append(code)
    gone: set[int] = set()
    made = []
    for number, (region, plan, constants) in enumerate(_told_apart(planned)):
        gone.update(index for node in region.nodes for index in node.ops)
        op = schema.OperatorT()
        op.opcodeIndex = len(model.operatorCodes) - 1
        op.inputs = [
            *region.inputs,
            _constant(model, f"dqa_plan_{number}", encode(plan)),
            _constant(model, f"dqa_weights_{number}", constants),
        ]
        op.outputs = list(region.outputs)
        op.customOptions = np.frombuffer(
            _options(model, region, encode(plan), constants), np.uint8
        )
        made.append(op)
    kept = [op for index, op in enumerate(graph.operators) if index not in gone]
    graph.operators = _ordered([*kept, *made])
    _drop_unused(model)


def _options(model: Any, region: Region, plan: bytes, constants: bytes) -> bytes:
    """What LiteRT 2 must know of an op before it runs: see `FORMAT.md`."""
    numbers = [len(plan), len(constants), len(region.outputs)]
    for tensor in region.outputs:
        shape = model.subgraphs[0].tensors[tensor].shape
        numbers += [len(shape), *map(int, shape)]
    return np.array(numbers, "<u4").tobytes()


def _told_apart(
    planned: Sequence[tuple[Region, Plan, bytes]],
) -> list[tuple[Region, Plan, bytes]]:
    """Pads constants so that no two ops have plans and constants of the same sizes."""
    sizes: set[tuple[int, int]] = set()
    apart = []
    for region, plan, constants in planned:
        while (len(encode(plan)), len(constants)) in sizes:
            constants += bytes(16)
            plan = dataclasses.replace(plan, constants=len(constants))
        sizes.add((len(encode(plan)), len(constants)))
        apart.append((region, plan, constants))
    return apart


def _constant(model: Any, name: str, data: bytes) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    tensor = schema.TensorT()
    tensor.name = name.encode()
    tensor.shape, tensor.type = [len(data)], schema.TensorType.UINT8
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _ordered(operators: list[Any]) -> list[Any]:
    """Sorts ops so that each stands behind those whose outputs it reads."""
    made = {
        int(tensor): number
        for number, op in enumerate(operators)
        for tensor in op.outputs
    }
    order: list[Any] = []
    state: dict[int, bool] = {}

    for start in range(len(operators)):
        stack = [start]
        while stack:
            number = stack[-1]
            if state.get(number):
                stack.pop()
                continue
            waiting = [
                made[int(tensor)]
                for tensor in operators[number].inputs
                if int(tensor) in made and not state.get(made[int(tensor)])
            ]
            if waiting:
                stack.extend(waiting)
                continue
            state[number] = True
            order.append(operators[number])
            stack.pop()
    return order


def _drop_unused(model: Any) -> None:
    """Takes out tensors that no op uses any more, and their buffers' bytes."""
    graph = model.subgraphs[0]
    ends = [*graph.inputs, *graph.outputs]
    used = sorted(
        {int(t) for op in graph.operators for t in [*op.inputs, *op.outputs] if t >= 0}
        | {int(t) for t in ends}
    )
    renumbered: Mapping[int, int] = {old: new for new, old in enumerate(used)}
    graph.tensors = [graph.tensors[old] for old in used]

    def moved(tensors: Sequence[int]) -> list[int]:
        return [renumbered[int(t)] if t >= 0 else -1 for t in tensors]

    for op in graph.operators:
        op.inputs, op.outputs = moved(op.inputs), moved(op.outputs)
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for signature in model.signatureDefs or []:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.tensorIndex = renumbered[int(entry.tensorIndex)]
    kept = {tensor.buffer for part in model.subgraphs for tensor in part.tensors}
    kept |= {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in kept:
            buffer.data = None


def check_complete(report: PackedReport, strict: bool) -> None:
    """Raises ValueError if nothing was packed, or `strict` and something was not."""
    if not report.regions or (strict and report.outside):
        name, reason = next(
            iter(report.outside.items()), ("the model", "it has no quantizer")
        )
        raise ValueError(
            f"{'strict: every op' if strict else 'some op'} must run on packed "
            f"activations. Received: {name}: {reason}"
        )


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

        found = [
            (content(op.inputs[-2]), content(op.inputs[-1]))
            for op in graph.ops
            if graph.kind(op) == OP_NAME
        ]
    return [(decode(plan), constants) for plan, constants in found]


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
