"""What a region consists of: operations on activations, in one vocabulary."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.plan.ops import Window
from dqa_keras.layers import Quantizer


@dataclasses.dataclass
class Node:
    """One operation on activations.

    Args:
        kind: String. One of those that `lowering` has a function for.
        inputs: List of tensors, numbers of the flatbuffer's.
        output: Integer. Tensor.
        ops: List of integers. The flatbuffer's ops it stands for.
        window: `Window`.
        clamp: Pair of floats, of the fused activation.
        arrays: Dictionary of constants: kernel, bias, scale, offset, and the channels
            of what moves them.
        widths: Integers: padding (top, bottom, left, right) of `pad`, negative where it
            crops, channels in front of `widen`, strides of `transpose`.
        quantizer: The layer of `quantize`.
        function: What `function` computes from each value, in float64.
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
    function: Callable[[NDArray], NDArray] | None = None


class UnsupportedNode(Unsupported):
    """Why a region cannot hold a node.

    Args:
        reason: String.
        node: `Node`.
    """

    def __init__(self, reason: str, node: Node) -> None:
        super().__init__(reason)
        self.node = node


def node_of(
    reader: ModelReader, kind: str, index: int, inputs: Sequence[int], **fields: Any
) -> Node:
    """A node for op `index` of a model; further fields as in `Node`."""
    op = reader.graph.ops[index]
    fields.setdefault("ops", [index])
    fields.setdefault("output", int(op.outputs[0]))
    return Node(kind, [int(tensor) for tensor in inputs], **fields)


def check_window(kind: str, window: Window) -> None:
    """Refuses a window that the fields of a plan, or its kernels, cannot hold.

    Raises:
        Unsupported: If it cannot.
    """
    # Convolutions keep a pointer for each row of taps.
    taps = 65535 if kind in ("average", "max_pool") else 255
    for what, value, limit in (
        ("window of", max(window.height, window.width), taps),
        ("stride of", max(window.stride), 255),
        ("dilation of", max(window.dilation), 255),
        ("padding of", max(window.top, window.left), 32767),
    ):
        if value > limit:
            raise Unsupported(f"a {what} {value}; a plan holds at most {limit}")
