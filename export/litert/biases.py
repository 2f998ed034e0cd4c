"""Gives biases the size that LiteRT reads.

The converter merges `x + 3`, as in hard_sigmoid, into the bias of the op before and
leaves it one number; LiteRT then reads past its end.
"""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dqa_keras.export.litert import flatbuffer


def widen_biases(model: Any) -> None:
    """Repeats biases of one number for each channel of a `ModelT`, in place."""
    graph = flatbuffer.Graph(model)
    tensors = model.subgraphs[0].tensors
    for op in graph.ops:
        if graph.kind(op) not in flatbuffer.KERNEL_OPS:
            continue
        place = flatbuffer.bias_place(graph.kind(op))
        if len(op.inputs) <= place or op.inputs[place] < 0:
            continue
        bias = tensors[int(op.inputs[place])]
        channels = int(tensors[int(op.outputs[0])].shape[-1])
        data = model.buffers[bias.buffer].data
        if channels == 1 or data is None or len(data) != 4:
            continue
        buffer = schema.BufferT()
        buffer.data = np.tile(data, channels)
        wide = copy.copy(bias)
        wide.shape, wide.buffer = np.array([channels], np.int32), len(model.buffers)
        model.buffers.append(buffer)
        op.inputs = list(map(int, op.inputs))
        op.inputs[place] = len(tensors)
        tensors.append(wide)
