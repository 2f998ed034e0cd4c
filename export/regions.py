"""Finds what a `DQA` op can hold in a converted model.

Ops of the flatbuffer become nodes of one vocabulary; several ops that make one
operation (a quantizer, an enlarged image, widened channels) become one node. Nodes that
hang together, quantizers among them, form a region.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from dqa_keras.export import flatbuffer, verification
from dqa_keras.export.plan import Window
from dqa_keras.layers import Quantizer

_RELU = {
    schema.ActivationFunctionType.NONE: (-np.inf, np.inf),
    schema.ActivationFunctionType.RELU: (0.0, np.inf),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
}
_CLAMPS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


class Unsupported(Exception):
    """Why an op stays outside."""


@dataclasses.dataclass
class Node:
    """One operation on activations.

    Args:
        kind: String: conv, depthwise, add, affine, clamp, average, maximum, nearest,
            bilinear, concat, widen, pad, quantize.
        inputs: List of tensors, numbers of the flatbuffer's.
        output: Integer. Tensor.
        ops: List of integers. The flatbuffer's ops it stands for.
        window: `Window`.
        clamp: Pair of floats, of the fused activation.
        arrays: Dictionary of constants: kernel, bias, scale, offset.
        widths: Integers: padding (top, bottom, left, right) of `pad`, channels in front
            of `widen`.
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


@dataclasses.dataclass
class Region:
    """Nodes that become one op.

    Args:
        nodes: List of `Node`, in an order in which they can run.
        inputs: List of tensors from outside.
        outputs: List of tensors that are wanted outside.
    """

    nodes: list[Node]
    inputs: list[int]
    outputs: list[int]


class Reader:
    """Reads the ops of a model as nodes.

    Args:
        model: `ModelT`, a built-in export.
        layers: The quantizers of the Keras model it was made of.
    """

    def __init__(self, model: Any, layers: Sequence[Quantizer]) -> None:
        self.graph = flatbuffer.Graph(model)
        self._model = model
        self._tensors = model.subgraphs[0].tensors
        self._layers = layers
        self.uses: dict[int, int] = {}
        self._consumers: dict[int, list[int]] = {}
        for index, op in enumerate(self.graph.ops):
            for tensor in op.inputs:
                self._consumers.setdefault(int(tensor), []).append(index)
        self._outputs = {int(tensor) for tensor in model.subgraphs[0].outputs}

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

    def nodes(self) -> tuple[list[Node], dict[int, str]]:
        """The nodes, and the reasons why ops (by number) are not among them."""
        nodes: list[Node] = []
        reasons: dict[int, str] = {}
        taken: set[int] = set()
        for index in range(len(self.graph.ops)):
            if index in taken:
                continue
            try:
                node = self._node(index)
                for tensor in [*node.inputs, node.output]:
                    self.shape(tensor)
                    if self._tensors[tensor].type != schema.TensorType.FLOAT32:
                        raise Unsupported("it computes on something else than float32")
            except Unsupported as reason:
                reasons[index] = str(reason)
                continue
            taken.update(node.ops)
            nodes.append(node)
        for index in taken:
            reasons.pop(index, None)
        return nodes, reasons

    def _node(self, index: int) -> Node:
        for pattern in (self._quantize, self._nearest, self._widen, self._flat):
            node = pattern(index)
            if node is not None:
                return node
        op = self.graph.ops[index]
        kind = self.graph.kind(op)
        if kind in _CLAMPS:
            return self._make("clamp", index, [op.inputs[0]], clamp=_CLAMPS[kind])
        read: Callable[[int, Any], Node] | None = getattr(
            self, f"_{kind.lower()}", None
        )
        if read is None:
            raise Unsupported(f"{kind} is not among the ops that a region can hold")
        return read(index, op)

    def _make(
        self, kind: str, index: int, inputs: Sequence[int], **fields: Any
    ) -> Node:
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

    def _channels(self, tensor: int, channels: int) -> NDArray[np.float64]:
        """A constant operand as one number a channel."""
        values = self.constant(tensor)
        if values.size == 1:
            return np.full(channels, float(values.reshape(-1)[0]))
        rows = values.reshape(-1, values.shape[-1])
        if rows.shape[1] != channels or not np.all(rows == rows[0]):
            raise Unsupported("a constant operand differs between pixels")
        return rows[0].astype(np.float64)

    def _clamp(self, op: Any) -> tuple[float, float]:
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

    def _bias(self, op: Any, channels: int) -> NDArray[np.float64]:
        if len(op.inputs) < 3 or op.inputs[2] < 0:
            return np.zeros(channels)
        return self.constant(op.inputs[2]).astype(np.float64)

    def _conv_2d(self, index: int, op: Any) -> Node:
        kernel = self.constant(op.inputs[1])
        if kernel.shape[3] != self.shape(op.inputs[0])[2]:
            raise Unsupported("a grouped convolution")
        return self._make(
            "conv",
            index,
            op.inputs[:1],
            window=self._window(op, kernel.shape[1:3], True),
            clamp=self._clamp(op),
            arrays={
                "kernel": kernel.astype(np.float64),
                "bias": self._bias(op, kernel.shape[0]),
            },
        )

    def _depthwise_conv_2d(self, index: int, op: Any) -> Node:
        kernel = self.constant(op.inputs[1])
        if op.builtinOptions.depthMultiplier != 1:
            raise Unsupported("a depth multiplier other than 1")
        return self._make(
            "depthwise",
            index,
            op.inputs[:1],
            window=self._window(op, kernel.shape[1:3], True),
            clamp=self._clamp(op),
            arrays={
                "kernel": kernel[0].astype(np.float64),
                "bias": self._bias(op, kernel.shape[3]),
            },
        )

    def _fully_connected(self, index: int, op: Any) -> Node:
        kernel = self.constant(op.inputs[1]).astype(np.float64)
        if self.shape(op.inputs[0]) != (1, 1, kernel.shape[1]):
            raise Unsupported("a dense layer over more than channels")
        return self._make(
            "conv",
            index,
            op.inputs[:1],
            clamp=self._clamp(op),
            arrays={
                "kernel": kernel[:, None, None, :],
                "bias": self._bias(op, kernel.shape[0]),
            },
        )

    def _affine(self, index: int, op: Any, array: str, sign: float = 1.0) -> Node:
        first, second = (int(tensor) for tensor in op.inputs)
        if self.graph.is_constant(first):
            if sign < 0:
                raise Unsupported("a constant from which it subtracts")
            first, second = second, first
        channels = self.shape(op.outputs[0])[2]
        if self.shape(first) != self.shape(op.outputs[0]):
            raise Unsupported("it broadcasts")
        values = sign * self._channels(second, channels)
        return self._make(
            "affine", index, [first], clamp=self._clamp(op), arrays={array: values}
        )

    def _mul(self, index: int, op: Any) -> Node:
        if not any(self.graph.is_constant(tensor) for tensor in op.inputs):
            raise Unsupported("a product of two activations")
        return self._affine(index, op, "scale")

    def _sub(self, index: int, op: Any) -> Node:
        if not self.graph.is_constant(op.inputs[1]):
            raise Unsupported("a difference of two activations")
        return self._affine(index, op, "offset", -1.0)

    def _add(self, index: int, op: Any) -> Node:
        if any(self.graph.is_constant(tensor) for tensor in op.inputs):
            return self._affine(index, op, "offset")
        if len({self.shape(tensor) for tensor in [*op.inputs, *op.outputs]}) > 1:
            raise Unsupported("it broadcasts")
        return self._make("add", index, op.inputs, clamp=self._clamp(op))

    def _max_pool_2d(self, index: int, op: Any) -> Node:
        taps = (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
        window = self._window(op, (int(taps[0]), int(taps[1])), False)
        if self._clamp(op) != (-np.inf, np.inf):
            raise Unsupported("its fused activation is not of the ReLU family")
        return self._make("maximum", index, op.inputs, window=window)

    def _average_pool_2d(self, index: int, op: Any) -> Node:
        taps = (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
        window = self._window(op, (int(taps[0]), int(taps[1])), False)
        # One tap: it only drops pixels.
        kind = "maximum" if window.height == window.width == 1 else "average"
        clamp = self._clamp(op)
        if kind == "maximum" and clamp != (-np.inf, np.inf):
            raise Unsupported("an activation fused into a selection of pixels")
        return self._make(kind, index, op.inputs, window=window, clamp=clamp)

    def _mean(self, index: int, op: Any) -> Node:
        height, width, _ = self.shape(op.inputs[0])
        axes = sorted(int(axis) % 4 for axis in self.constant(op.inputs[1]).reshape(-1))
        if axes != [1, 2]:
            raise Unsupported("a mean over something else than all pixels")
        window = Window(height, width, (height, width))
        return self._make("average", index, op.inputs[:1], window=window)

    def _concatenation(self, index: int, op: Any) -> Node:
        if int(op.builtinOptions.axis) % 4 != 3 or any(
            self.graph.is_constant(tensor) for tensor in op.inputs
        ):
            raise Unsupported("it joins something else than channels")
        if self._clamp(op) != (-np.inf, np.inf):
            raise Unsupported("an activation fused into a concatenation")
        return self._make("concat", index, op.inputs)

    def _pad(self, index: int, op: Any) -> Node:
        pads = self.constant(op.inputs[1]).astype(int)
        if pads.shape != (4, 2) or pads[[0, 3]].any():
            raise Unsupported("it pads something else than rows and columns")
        widths = tuple(int(width) for width in pads[1:3].reshape(-1))
        return self._make("pad", index, op.inputs[:1], widths=widths)

    def _resize(self, index: int, op: Any, kind: str) -> Node:
        source, target = self.shape(op.inputs[0]), self.shape(op.outputs[0])
        factors = (target[0] // source[0], target[1] // source[1])
        options = op.builtinOptions
        if (factors[0] * source[0], factors[1] * source[1]) != target[:2]:
            raise Unsupported("an image that does not grow by whole factors")
        if options.alignCorners or (
            kind == "bilinear" and not options.halfPixelCenters
        ):
            raise Unsupported("an image that grows without half-pixel centers")
        if max(factors) > 8:
            raise Unsupported("an image that grows by more than 8")
        window = Window(1, 1, factors)
        return self._make(kind, index, op.inputs[:1], window=window)

    def _resize_nearest_neighbor(self, index: int, op: Any) -> Node:
        return self._resize(index, op, "nearest")

    def _resize_bilinear(self, index: int, op: Any) -> Node:
        return self._resize(index, op, "bilinear")

    def _only_consumer(self, tensor: int, kind: str) -> int | None:
        """The one op behind a tensor, if it is of a kind and nothing else reads it."""
        found = self._consumers.get(tensor, [])
        if tensor in self._outputs or len(found) != 1:
            return None
        return found[0] if self.graph.kind(self.graph.ops[found[0]]) == kind else None

    def _chain(self, index: int, kinds: Sequence[str]) -> list[int] | None:
        """Ops of the given kinds, each the only reader of the one before."""
        if self.graph.kind(self.graph.ops[index]) != kinds[0]:
            return None
        chain = [index]
        for kind in kinds[1:]:
            following = self._only_consumer(
                int(self.graph.ops[chain[-1]].outputs[0]), kind
            )
            if following is None:
                return None
            chain.append(following)
        return chain

    def _between(self, chain: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        first, last = self.graph.ops[chain[0]], self.graph.ops[chain[-1]]
        try:
            return self.shape(first.inputs[0]), self.shape(last.outputs[0])
        except Unsupported:
            return (), ()

    def _nearest(self, index: int) -> Node | None:
        """Keras' UpSampling2D: each pixel is repeated by reshaping and tiling."""
        chain = self._chain(index, ["RESHAPE", "TILE", "RESHAPE", "TILE", "RESHAPE"])
        if chain is None:
            return None
        source, target = self._between(chain)
        if not source or source[2] != target[2]:
            return None
        tiles = [self.constant(self.graph.ops[chain[i]].inputs[1]) for i in (1, 3)]
        factors = (int(tiles[0].prod()), int(tiles[1].prod()))
        if (source[0] * factors[0], source[1] * factors[1]) != target[:2]:
            return None
        return self._make(
            "nearest",
            index,
            self.graph.ops[index].inputs[:1],
            ops=chain,
            output=int(self.graph.ops[chain[-1]].outputs[0]),
            window=Window(1, 1, factors),
        )

    def _widen(self, index: int) -> Node | None:
        """Channels of zeros on both sides, made by padding where they are columns."""
        chain = self._chain(index, ["RESHAPE", "PAD", "RESHAPE"])
        if chain is None:
            return None
        source, target = self._between(chain)
        pads = self.constant(self.graph.ops[chain[1]].inputs[1]).astype(int)
        if not source or source[:2] != target[:2] or pads.shape != (4, 2):
            return None
        if pads[[0, 1, 3]].any() or source[2] + pads[2].sum() != target[2]:
            return None
        return self._make(
            "widen",
            index,
            self.graph.ops[index].inputs[:1],
            ops=chain,
            output=int(self.graph.ops[chain[-1]].outputs[0]),
            widths=(int(pads[2][0]),),
        )

    def _flat(self, index: int) -> Node | None:
        """A dense layer over all pixels: a convolution whose window is the image."""
        chain = self._chain(index, ["RESHAPE", "FULLY_CONNECTED"])
        if chain is None:
            return None
        first, last = (self.graph.ops[at] for at in chain)
        try:
            height, width, channels = self.shape(first.inputs[0])
        except Unsupported:
            return None
        kernel = self.constant(last.inputs[1]).astype(np.float64)
        if kernel.shape[1] != height * width * channels or height > 255:
            return None
        return self._make(
            "conv",
            index,
            first.inputs[:1],
            ops=chain,
            output=int(last.outputs[0]),
            window=Window(height, width),
            clamp=self._clamp(last),
            arrays={
                "kernel": kernel.reshape(-1, height, width, channels),
                "bias": self._bias(last, kernel.shape[0]),
            },
        )

    def _quantize(self, index: int) -> Node | None:
        """A quantizer: scaling, bounds, rounding and scaling back."""
        chain = [index]
        while True:
            op = self.graph.ops[chain[-1]]
            kind = self.graph.kind(op)
            if kind == "ROUND":
                break
            constant = [self.graph.is_constant(tensor) for tensor in op.inputs]
            following = self._consumers.get(int(op.outputs[0]), [])
            if (
                kind not in ("MUL", "MAXIMUM", "MINIMUM", "RELU")
                or (kind == "MUL" and len(chain) > 1)
                or (kind != "RELU" and sum(constant) != 1)
                or len(following) != 1
                or int(op.outputs[0]) in self._outputs
            ):
                return None
            chain.append(following[0])
        number = verification.quantizer_number(self.graph.name(op.outputs[0]))
        if number is None:
            return None
        layer = self._layers[number]
        channels = self.shape(op.outputs[0])[2]
        first = self.graph.ops[index]
        scaled = self.graph.kind(first) == "MUL"
        source = self.graph.variable_input(first)
        before = (
            self._channels(self._other(first, source), channels)
            if scaled
            else np.ones(channels)
        )
        behind = self._only_consumer(int(op.outputs[0]), "MUL")
        after = np.ones(channels)
        if behind is not None:
            last = self.graph.ops[behind]
            other = self._other(last, int(op.outputs[0]))
            if self.graph.is_constant(other):
                after = self._channels(other, channels)
                if self._clamp(last) != (-np.inf, np.inf):
                    raise Unsupported("an activation fused into a quantizer")
                chain.append(behind)
        return self._make(
            "quantize",
            index,
            [source],
            ops=chain,
            output=int(self.graph.ops[chain[-1]].outputs[0]),
            arrays={"scale": before, "step": after},
            quantizer=layer,
        )

    def _other(self, op: Any, tensor: int) -> int:
        first, second = (int(index) for index in op.inputs)
        return second if first == tensor else first

    def regions(self, nodes: list[Node]) -> list[Region]:
        """Groups nodes that hang together; a group without quantizers is none."""
        producer = {node.output: number for number, node in enumerate(nodes)}
        made_by = {
            int(tensor): index
            for index, op in enumerate(self.graph.ops)
            for tensor in op.outputs
        }
        owner = {index: n for n, node in enumerate(nodes) for index in node.ops}
        # Borders crossed on the way from the inputs: nodes with the same number of
        # them can never have an outside op between them.
        borders: list[int] = [0] * len(self.graph.ops)
        for index, op in enumerate(self.graph.ops):
            for tensor in op.inputs:
                source = made_by.get(int(tensor))
                if source is not None:
                    crossed = (source in owner) != (index in owner)
                    borders[index] = max(borders[index], borders[source] + crossed)
        parent = list(range(len(nodes)))

        def root(number: int) -> int:
            while parent[number] != number:
                number = parent[number]
            return number

        for number, node in enumerate(nodes):
            for tensor in node.inputs:
                source = producer.get(tensor)
                if source is not None and (
                    borders[nodes[source].ops[0]] == borders[node.ops[0]]
                ):
                    parent[root(number)] = root(source)
        groups: dict[int, list[Node]] = {}
        for number, node in enumerate(nodes):
            groups.setdefault(root(number), []).append(node)
        return [
            self._region(group)
            for group in groups.values()
            if any(node.kind == "quantize" for node in group)
        ]

    def _region(self, nodes: list[Node]) -> Region:
        ops = {index for node in nodes for index in node.ops}
        made = {node.output for node in nodes}
        read = [tensor for node in nodes for tensor in node.inputs]
        inputs = list(dict.fromkeys(tensor for tensor in read if tensor not in made))
        outputs = [
            node.output
            for node in nodes
            if node.output in self._outputs
            or any(index not in ops for index in self._consumers.get(node.output, []))
        ]
        return Region(nodes, inputs, outputs)
