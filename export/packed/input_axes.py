"""Lets ops that read a model's input see a shape that a user resized it to.

The converter writes an axis of size 1 that `Conv1D` adds as a `RESHAPE` to constant
sizes. That takes an input of any shape with as many values, and the op behind it would
compute on them as if they had the old shape. `EXPAND_DIMS` and `SQUEEZE` do the same
and hand on the sizes that the input has, so that what is behind can refuse them.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.litert import flatbuffer


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
        op.inputs = [source, _axis(model, added)]


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


def _axis(model: Any, axis: int) -> int:
    buffer = schema.BufferT()
    buffer.data = np.array([axis], "<i4").view(np.uint8)
    tensor = schema.TensorT()
    tensor.name = b"dqa_input_axis"
    tensor.shape, tensor.type = [1], schema.TensorType.INT32
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1
