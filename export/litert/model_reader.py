"""Shapes, constants and neighbours of a converted model's ops."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from dqa_keras.export.litert import flatbuffer
from dqa_keras.layers import Quantizer

_RELU = {
    schema.ActivationFunctionType.NONE: (-np.inf, np.inf),
    schema.ActivationFunctionType.RELU: (0.0, np.inf),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
}


class Unsupported(Exception):
    """Why an op cannot be used as asked; the message is the reason."""


class ModelReader:
    """Shapes, constants and neighbours of a model's ops.

    Args:
        model: `ModelT`, a built-in export.
        layers: The quantizers of the Keras model it was made of.
    """

    def __init__(self, model: Any, layers: Sequence[Quantizer]) -> None:
        self.graph = flatbuffer.Graph(model)
        self._model = model
        self._tensors = model.subgraphs[0].tensors
        self.layers = layers
        self.consumers: dict[int, list[int]] = {}
        for index, op in enumerate(self.graph.ops):
            for tensor in op.inputs:
                self.consumers.setdefault(int(tensor), []).append(index)
        self.inputs = [int(tensor) for tensor in model.subgraphs[0].inputs]
        self.outputs = {int(tensor) for tensor in model.subgraphs[0].outputs}

    def sizes(self, tensor: int) -> list[int]:
        """The sizes of a tensor, batch first."""
        shape = self._tensors[tensor].shape
        return [] if shape is None else [int(size) for size in shape]

    def shape(self, tensor: int) -> tuple[int, int, int]:
        """Height, width and channels of a tensor of batch 1.

        A tensor of three axes is an image of one row, one of two a single pixel.
        """
        sizes = self.sizes(tensor)
        signature = self._tensors[tensor].shapeSignature
        if signature is not None and min(map(int, signature), default=1) < 0:
            raise Unsupported("its sizes are not known before run time")
        if len(sizes) == 2 and sizes[0] == 1:
            return 1, 1, sizes[1]
        if len(sizes) == 3 and sizes[0] == 1 and min(sizes) >= 1:
            return 1, sizes[1], sizes[2]
        if len(sizes) != 4 or sizes[0] != 1 or min(sizes) < 1:
            raise Unsupported(f"a tensor of shape {sizes} is no image of batch 1")
        return sizes[1], sizes[2], sizes[3]

    def image_axis(self, tensor: int, axis: int) -> int:
        """An axis of a tensor as that of an image: 0 batch, 1 rows, 2 columns, 3."""
        rank = len(self.sizes(tensor))
        axis = axis % rank
        return axis + 4 - rank if axis else 0

    def is_float(self, tensor: int) -> bool:
        """Whether a tensor holds float32 values."""
        return bool(self._tensors[tensor].type == schema.TensorType.FLOAT32)

    def constant(self, tensor: int) -> NDArray:
        """The values of a constant tensor."""
        entry = self._tensors[tensor]
        dtype = {
            schema.TensorType.FLOAT32: "<f4",
            schema.TensorType.INT32: "<i4",
            schema.TensorType.INT64: "<i8",
        }.get(entry.type)
        if dtype is None or not self.graph.is_constant(tensor):
            raise Unsupported("a weight is not a float32 constant")
        values = np.frombuffer(self._model.buffers[entry.buffer].data.tobytes(), dtype)
        shape = [] if entry.shape is None else [int(size) for size in entry.shape]
        return values.reshape(shape)

    def channels(self, tensor: int, channels: int) -> NDArray[np.float64]:
        """A constant operand as one number a channel."""
        values = self.constant(tensor)
        if values.size == 1:
            return np.full(channels, float(values.reshape(-1)[0]))
        rows = values.reshape(-1, values.shape[-1])
        if rows.shape[1] != channels or not np.all(rows == rows[0]):
            raise Unsupported("a constant operand differs between pixels")
        return rows[0].astype(np.float64)

    def clamp(self, op: Any) -> tuple[float, float]:
        """The bounds that an op's fused activation sets."""
        code = op.builtinOptions.fusedActivationFunction
        if code not in _RELU:
            raise Unsupported("its fused activation is not of the ReLU family")
        return _RELU[code]

    def bias(self, op: Any, channels: int) -> NDArray[np.float64]:
        """The third input of an op, zeros if it has none."""
        if len(op.inputs) < 3 or op.inputs[2] < 0:
            return np.zeros(channels)
        return self.constant(op.inputs[2]).astype(np.float64)

    def only_consumer(self, tensor: int, kind: str) -> int | None:
        """The only op that reads a tensor, if it is of a kind."""
        readers = self.consumers.get(tensor, [])
        if tensor in self.outputs or len(readers) != 1:
            return None
        op = self.graph.ops[readers[0]]
        return readers[0] if self.graph.kind(op) == kind else None

    def chain(self, index: int, kinds: Sequence[str]) -> list[int] | None:
        """Ops of the given kinds, each the only reader of the one before."""
        if self.graph.kind(self.graph.ops[index]) != kinds[0]:
            return None
        chain = [index]
        for kind in kinds[1:]:
            following = self.only_consumer(
                int(self.graph.ops[chain[-1]].outputs[0]), kind
            )
            if following is None:
                return None
            chain.append(following)
        return chain

    def between(self, chain: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What goes into a chain and what comes out; empty if they are no images."""
        first, last = self.graph.ops[chain[0]], self.graph.ops[chain[-1]]
        try:
            return self.shape(first.inputs[0]), self.shape(last.outputs[0])
        except Unsupported:
            return (), ()
