"""Lets a packed model refuse an input that a user resized to another shape.

The converter writes an axis of size 1 that `Conv1D` adds as a `RESHAPE` to constant
sizes. That takes an input of any shape with as many values, and the op behind it would
compute on them as if they had the old shape. `EXPAND_DIMS` and `SQUEEZE` do the same
and hand on the sizes that the input has, so that what is behind can refuse them. In
front of any other `RESHAPE` stands a `SLICE` of the old sizes: of as many values in
another shape, one size is smaller, and LiteRT refuses to take more than there is.
"""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.litert import flatbuffer

# What LiteRT's SLICE takes.
_MOST_SLICED = 5


def follow_inputs(model: Any) -> None:
    """Rewrites reshapes of a parsed model's inputs that add or drop axes of size 1."""
    graph = flatbuffer.Graph(model)
    ends = set(map(int, model.subgraphs[0].inputs))
    reshapes = [
        op
        for op in graph.ops
        if graph.kind(op) == "RESHAPE" and int(op.inputs[0]) in ends
    ]
    for op in reshapes:
        _follow(model, op)
    if reshapes:
        flatbuffer.drop_unused(model)


def guard_inputs(model: Any, custom_op: str) -> None:
    """Puts a `SLICE` behind each input that is reshaped on its way to a custom op.

    Args:
        model: `ModelT`, changed in place.
        custom_op: Name of the op that compares sizes itself.
    """
    graph = flatbuffer.Graph(model)
    subgraph = model.subgraphs[0]
    for tensor in map(int, subgraph.inputs):
        reached, is_reshaped = {tensor}, False
        for op in graph.ops:
            if not reached.isdisjoint(map(int, op.inputs)):
                kind = graph.kind(op)
                is_reshaped |= kind == "RESHAPE"
                if kind != custom_op:
                    reached.update(map(int, op.outputs))
        shape = subgraph.tensors[tensor].shape
        if is_reshaped and shape is not None and 0 < len(shape) <= _MOST_SLICED:
            _guard(model, tensor)


def _guard(model: Any, tensor: int) -> None:
    subgraph = model.subgraphs[0]
    source = subgraph.tensors[tensor]
    sizes = [int(size) for size in source.shape]
    guarded = copy.copy(source)
    guarded.name = b"dqa_input_guard"
    subgraph.tensors.append(guarded)
    output = len(subgraph.tensors) - 1
    for op in subgraph.operators:
        op.inputs = [output if int(t) == tensor else int(t) for t in op.inputs]
    guard = schema.OperatorT()
    guard.opcodeIndex = _code(model, schema.BuiltinOperator.SLICE)
    guard.builtinOptionsType = schema.BuiltinOptions.SliceOptions
    guard.builtinOptions = schema.SliceOptionsT()
    guard.inputs = [
        tensor,
        _constant(model, "dqa_guard_begin", [0] * len(sizes)),
        _constant(model, "dqa_guard_sizes", sizes),
    ]
    guard.outputs = [output]
    subgraph.operators.insert(0, guard)


def _follow(model: Any, op: Any) -> None:
    tensors = model.subgraphs[0].tensors
    source, target = int(op.inputs[0]), int(op.outputs[0])
    before, after = (list(map(int, tensors[t].shape)) for t in (source, target))
    dropped = _unit_axis(before, after)
    added = _unit_axis(after, before)
    if dropped is not None:
        squeeze = schema.SqueezeOptionsT()
        squeeze.squeezeDims = [dropped]
        op.opcodeIndex = _code(model, schema.BuiltinOperator.SQUEEZE)
        op.builtinOptionsType = schema.BuiltinOptions.SqueezeOptions
        op.builtinOptions, op.inputs = squeeze, [source]
    elif added is not None:
        op.opcodeIndex = _code(model, schema.BuiltinOperator.EXPAND_DIMS)
        op.builtinOptionsType = schema.BuiltinOptions.ExpandDimsOptions
        op.builtinOptions = schema.ExpandDimsOptionsT()
        op.inputs = [source, _constant(model, "dqa_input_axis", [added])]


def _unit_axis(more: list[int], fewer: list[int]) -> int | None:
    """The axis of size 1 that `more` has beyond `fewer`, if that is all."""
    for axis, size in enumerate(more):
        if size == 1 and more[:axis] + more[axis + 1 :] == fewer:
            return axis
    return None


def _code(model: Any, builtin: int) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _constant(model: Any, name: str, values: list[int]) -> int:
    """A new tensor of int32 values."""
    buffer = schema.BufferT()
    buffer.data = np.array(values, "<i4").view(np.uint8)
    tensor = schema.TensorT()
    tensor.name = name.encode()
    tensor.shape, tensor.type = [len(values)], schema.TensorType.INT32
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1
