"""A converted model as seen by whoever looks for regions in it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.plan.ops import Window
from dqa_keras.layers import Quantizer

_RELU = {
    schema.ActivationFunctionType.NONE: (-np.inf, np.inf),
    schema.ActivationFunctionType.RELU: (0.0, np.inf),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
}


class Unsupported(Exception):
    """Why an op stays outside.

    Args:
        reason: String.
        node: The `Node` that a region cannot hold, where that is known.
    """

    def __init__(self, reason: str, node: "Node | None" = None) -> None:
        super().__init__(reason)
        self.node = node


@dataclasses.dataclass
class Node:
    """One operation on activations.

    Args:
        kind: String: conv, depthwise, transpose, add, affine, clamp, average, maximum,
            nearest, bilinear, concat, widen, pad, quantize.
        inputs: List of tensors, numbers of the flatbuffer's.
        output: Integer. Tensor.
        ops: List of integers. The flatbuffer's ops it stands for.
        window: `Window`.
        clamp: Pair of floats, of the fused activation.
        arrays: Dictionary of constants: kernel, bias, scale, offset.
        widths: Integers: padding (top, bottom, left, right) of `pad`, channels in front
            of `widen`, strides of `transpose`.
        quantizer: The layer of `quantize`.
    """

    kind: str
    inputs: list[int]
    output: int
    ops: list[int]
    window: Window = dataclasses.field(default_factory=Window)
    clamp: tuple[float, float] = (-np.inf, np.inf)
    arrays: dict[str, NDArray] = dataclasses.field(default_factory=dict)
    widths: tuple[int, ...] = ()
    quantizer: Quantizer | None = None


def check_window(kind: str, window: Window) -> None:
    """Refuses a window that the fields of a plan, or its kernels, cannot hold.

    Raises:
        Unsupported: If it cannot.
    """
    # Convolutions keep a pointer for each row of taps.
    taps = 65535 if kind in ("average", "maximum") else 255
    for what, value, most in (
        ("window of", max(window.height, window.width), taps),
        ("stride of", max(window.stride), 255),
        ("dilation of", max(window.dilation), 255),
        ("padding of", max(window.top, window.left), 32767),
    ):
        if value > most:
            raise Unsupported(f"a {what} {value}; a plan holds at most {most}")


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
        self.uses: dict[int, int] = {}
        self.consumers: dict[int, list[int]] = {}
        for index, op in enumerate(self.graph.ops):
            for tensor in op.inputs:
                self.consumers.setdefault(int(tensor), []).append(index)
        self.outputs = {int(tensor) for tensor in model.subgraphs[0].outputs}

    def shape(self, tensor: int) -> tuple[int, int, int]:
        """Height, width and channels of a tensor of batch 1."""
        shape = self._tensors[tensor].shape
        sizes = [] if shape is None else [int(size) for size in shape]
        signature = self._tensors[tensor].shapeSignature
        if signature is not None and min(map(int, signature), default=1) < 0:
            raise Unsupported("its sizes are not known before run time")
        if len(sizes) == 2 and sizes[0] == 1:
            return 1, 1, sizes[1]
        if len(sizes) != 4 or sizes[0] != 1 or min(sizes) < 1:
            raise Unsupported(f"a tensor of shape {sizes} is no image of batch 1")
        return sizes[1], sizes[2], sizes[3]

    def make(self, kind: str, index: int, inputs: Sequence[int], **fields: Any) -> Node:
        """A node for op `index`; fields as in `Node`."""
        op = self.graph.ops[index]
        fields.setdefault("ops", [index])
        fields.setdefault("output", int(op.outputs[0]))
        return Node(kind, [int(tensor) for tensor in inputs], **fields)

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

    def _window(self, op: Any, taps: tuple[int, int], dilated: bool) -> Window:
        options = op.builtinOptions
        stride = (int(options.strideH), int(options.strideW))
        dilation = (
            (int(options.dilationHFactor), int(options.dilationWFactor))
            if dilated
            else (1, 1)
        )
        top = left = 0
        if options.padding == schema.Padding.SAME:
            source, target = self.shape(op.inputs[0]), self.shape(op.outputs[0])
            missing = [
                max(0, (target[i] - 1) * stride[i] + (taps[i] - 1) * dilation[i] + 1
                    - source[i])
                for i in range(2)
            ]  # fmt: skip
            top, left = missing[0] // 2, missing[1] // 2
        return Window(*taps, stride, dilation, top, left)

    def bias(self, op: Any, channels: int) -> NDArray[np.float64]:
        """The third input of an op, zeros if it has none."""
        if len(op.inputs) < 3 or op.inputs[2] < 0:
            return np.zeros(channels)
        return self.constant(op.inputs[2]).astype(np.float64)

    def only_consumer(self, tensor: int, kind: str) -> int | None:
        """The one op behind a tensor, if it is of a kind and nothing else reads it."""
        found = self.consumers.get(tensor, [])
        if tensor in self.outputs or len(found) != 1:
            return None
        return found[0] if self.graph.kind(self.graph.ops[found[0]]) == kind else None

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
