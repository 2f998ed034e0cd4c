"""Stores the weights of a parsed model in half precision.

The converter's own float16 mode rounds every constant, scales of quantizers included,
and codes change. Here only kernels are rounded; a DEQUANTIZE op, which LiteRT folds
when it loads the file, widens them again.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.litert import flatbuffer


def halve_weights(model: Any) -> None:
    """Rounds the kernels of a `ModelT` to float16, in place."""
    graph = flatbuffer.Graph(model)
    tensors = model.subgraphs[0].tensors
    kernels = {
        int(op.inputs[1])
        for op in graph.ops
        if graph.kind(op) in flatbuffer.KERNEL_OPS and graph.is_constant(op.inputs[1])
    }
    kernels = {k for k in kernels if tensors[k].type == schema.TensorType.FLOAT32}
    if not kernels:
        return
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    model.operatorCodes.append(code)
    widening = []
    for index in sorted(kernels):
        wide = tensors[index]
        values = np.frombuffer(model.buffers[wide.buffer].data.tobytes(), "<f4")
        buffer = schema.BufferT()
        buffer.data = values.astype("<f2").view(np.uint8)
        narrow = schema.TensorT()
        narrow.name = wide.name + b"_float16"
        narrow.shape, narrow.type = wide.shape, schema.TensorType.FLOAT16
        narrow.buffer = len(model.buffers)
        model.buffers.append(buffer)
        op = schema.OperatorT()
        op.opcodeIndex = len(model.operatorCodes) - 1
        op.inputs, op.outputs = [len(tensors)], [index]
        tensors.append(narrow)
        widening.append(op)
        wide.buffer = 0  # by convention empty: the tensor is computed now
    model.subgraphs[0].operators = widening + graph.ops
    flatbuffer.drop_unused(model)
