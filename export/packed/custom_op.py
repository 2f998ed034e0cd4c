"""Puts custom ops `DQA` into a model where regions were."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.packed.partition import Region
from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.records import Plan

OP_NAME = "DQA"


def replace_regions(model: Any, planned: Sequence[tuple[Region, Plan, bytes]]) -> None:
    """Puts `DQA` ops where regions were, in an order in which ops can run."""
    if not planned:
        return
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = OP_NAME.encode()
    model.operatorCodes.append(code)
    gone: set[int] = set()
    packed_ops = []
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
        packed_ops.append(op)
    kept = [op for index, op in enumerate(graph.operators) if index not in gone]
    graph.operators = _ordered([*kept, *packed_ops])
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
    writer = {
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
                writer[int(tensor)]
                for tensor in operators[number].inputs
                if int(tensor) in writer and not state.get(writer[int(tensor)])
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
