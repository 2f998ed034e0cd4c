"""Reads ops of a converted model as nodes of one vocabulary."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import (
    ModelReader,
    Node,
    Unsupported,
    check_window,
)
from dqa_keras.export.packed import patterns
from dqa_keras.export.plan.ops import Window

_CLAMPS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


class Reader(ModelReader):
    """Reads the ops of a model as nodes."""

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
                check_window(node.kind, node.window)
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
        for pattern in patterns.ALL:
            node = pattern(self, index)
            if node is not None:
                return node
        op = self.graph.ops[index]
        kind = self.graph.kind(op)
        if kind in _CLAMPS:
            return self.make("clamp", index, [op.inputs[0]], clamp=_CLAMPS[kind])
        read: Callable[[int, Any], Node] | None = getattr(
            self, f"_{kind.lower()}", None
        )
        if read is None:
            raise Unsupported(f"{kind} is not among the ops that a region can hold")
        return read(index, op)

    def _conv_2d(self, index: int, op: Any) -> Node:
        kernel = self.constant(op.inputs[1])
        if kernel.shape[3] != self.shape(op.inputs[0])[2]:
            raise Unsupported("a grouped convolution")
        return self.make(
            "conv",
            index,
            op.inputs[:1],
            window=self._window(op, kernel.shape[1:3], True),
            clamp=self.clamp(op),
            arrays={
                "kernel": kernel.astype(np.float64),
                "bias": self.bias(op, kernel.shape[0]),
            },
        )

    def _depthwise_conv_2d(self, index: int, op: Any) -> Node:
        kernel = self.constant(op.inputs[1])
        if op.builtinOptions.depthMultiplier != 1:
            raise Unsupported("a depth multiplier other than 1")
        return self.make(
            "depthwise",
            index,
            op.inputs[:1],
            window=self._window(op, kernel.shape[1:3], True),
            clamp=self.clamp(op),
            arrays={
                "kernel": kernel[0].astype(np.float64),
                "bias": self.bias(op, kernel.shape[3]),
            },
        )

    def _transpose_conv(self, index: int, op: Any) -> Node:
        kernel = self.constant(op.inputs[1]).astype(np.float64)
        source, target = self.shape(op.inputs[2]), self.shape(op.outputs[0])
        options = op.builtinOptions
        strides = (int(options.strideH), int(options.strideW))
        taps = kernel.shape[1:3]
        pads = [0, 0]
        if options.padding == schema.Padding.SAME:
            for i in range(2):
                full = (source[i] - 1) * strides[i] + taps[i]
                pads[i] = max(0, full - target[i]) // 2
        check_window("transpose", Window(stride=strides))
        if any(-(-target[i] // strides[i]) < source[i] for i in range(2)):
            raise Unsupported("a transposed convolution that drops pixels")
        phases, before = _phases(kernel, strides, pads)
        bias = np.zeros(target[2])
        if len(op.inputs) > 3 and op.inputs[3] >= 0:
            bias = self.constant(op.inputs[3]).astype(np.float64)
        return self.make(
            "transpose",
            index,
            op.inputs[2:3],
            window=Window(
                phases.shape[1], phases.shape[2], top=before[0], left=before[1]
            ),
            clamp=self.clamp(op),
            arrays={"kernel": phases, "bias": bias},
            widths=strides,
        )

    def _fully_connected(self, index: int, op: Any) -> Node:
        kernel = self.constant(op.inputs[1]).astype(np.float64)
        if self.shape(op.inputs[0]) != (1, 1, kernel.shape[1]):
            raise Unsupported("a dense layer over more than channels")
        return self.make(
            "conv",
            index,
            op.inputs[:1],
            clamp=self.clamp(op),
            arrays={
                "kernel": kernel[:, None, None, :],
                "bias": self.bias(op, kernel.shape[0]),
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
        values = sign * self.channels(second, channels)
        return self.make(
            "affine", index, [first], clamp=self.clamp(op), arrays={array: values}
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
        return self.make("add", index, op.inputs, clamp=self.clamp(op))

    def _max_pool_2d(self, index: int, op: Any) -> Node:
        taps = (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
        window = self._window(op, (int(taps[0]), int(taps[1])), False)
        if self.clamp(op) != (-np.inf, np.inf):
            raise Unsupported("its fused activation is not of the ReLU family")
        return self.make("maximum", index, op.inputs, window=window)

    def _average_pool_2d(self, index: int, op: Any) -> Node:
        taps = (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
        window = self._window(op, (int(taps[0]), int(taps[1])), False)
        # One tap: it only drops pixels.
        kind = "maximum" if window.height == window.width == 1 else "average"
        clamp = self.clamp(op)
        if kind == "maximum" and clamp != (-np.inf, np.inf):
            raise Unsupported("an activation fused into a selection of pixels")
        return self.make(kind, index, op.inputs, window=window, clamp=clamp)

    def _mean(self, index: int, op: Any) -> Node:
        height, width, _ = self.shape(op.inputs[0])
        axes = sorted(int(axis) % 4 for axis in self.constant(op.inputs[1]).reshape(-1))
        if axes != [1, 2]:
            raise Unsupported("a mean over something else than all pixels")
        window = Window(height, width)
        return self.make("average", index, op.inputs[:1], window=window)

    def _concatenation(self, index: int, op: Any) -> Node:
        if int(op.builtinOptions.axis) % 4 != 3 or any(
            self.graph.is_constant(tensor) for tensor in op.inputs
        ):
            raise Unsupported("it joins something else than channels")
        if self.clamp(op) != (-np.inf, np.inf):
            raise Unsupported("an activation fused into a concatenation")
        if len(op.inputs) > 255:
            raise Unsupported(f"it joins {len(op.inputs)} tensors; a plan at most 255")
        return self.make("concat", index, op.inputs)

    def _pad(self, index: int, op: Any) -> Node:
        pads = self.constant(op.inputs[1]).astype(int)
        if pads.shape != (4, 2) or pads[[0, 3]].any():
            raise Unsupported("it pads something else than rows and columns")
        widths = tuple(int(width) for width in pads[1:3].reshape(-1))
        return self.make("pad", index, op.inputs[:1], widths=widths)

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
        return self.make(kind, index, op.inputs[:1], window=window)

    def _resize_nearest_neighbor(self, index: int, op: Any) -> Node:
        return self._resize(index, op, "nearest")

    def _resize_bilinear(self, index: int, op: Any) -> Node:
        return self._resize(index, op, "bilinear")


def _phases(
    kernel: NDArray, strides: tuple[int, int], pads: list[int]
) -> tuple[NDArray, list[int]]:
    """A transposed convolution as an ordinary one with a set of outputs per phase.

    Output pixel `s i + p` sums `kernel[k]` times input pixel `i + (p + pad - k) / s`
    over the k for which that is whole: one small kernel for each p.

    Returns:
        Kernels (phases O, taps, taps, I), phases by rows, and the taps in front of i.
    """
    sizes, before = [], []
    for axis in range(2):
        low = -((kernel.shape[1 + axis] - 1 - pads[axis]) // strides[axis])
        high = (strides[axis] - 1 + pads[axis]) // strides[axis]
        before.append(max(0, -low))
        sizes.append(high + before[-1] + 1)
    outputs, height, width, inputs = kernel.shape
    phases = np.zeros((*strides, outputs, *sizes, inputs))
    for ky in range(height):
        for kx in range(width):
            py, dy = (ky - pads[0]) % strides[0], -((ky - pads[0]) // strides[0])
            px, dx = (kx - pads[1]) % strides[1], -((kx - pads[1]) // strides[1])
            phases[py, px, :, before[0] + dy, before[1] + dx] = kernel[:, ky, kx]
    return phases.reshape(-1, *sizes, inputs), before
