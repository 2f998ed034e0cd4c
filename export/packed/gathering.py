"""Takes some pixels and channels of a tensor, or zeros around it."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.packed.value import Codes
from dqa_keras.export.plan.ops import BLOCK, OpCode, Window
from dqa_keras.export.plan.program import Floats, Operation, Program, Tensor


def gathered(
    program: Program,
    source: Codes,
    window: Window,
    shape: tuple[int, int, int],
    name: str,
    channels: NDArray | None = None,
) -> int:
    """A tensor of some pixels and channels of another, with zeros around it.

    Args:
        program: `Program`, to which its operation is added.
        source: `Codes`.
        window: `Window` of one tap.
        shape: Height, width and channels of the new tensor.
        name: String, for people.
        channels: Integer array (C,). Where channels come from. Defaults to `None`:
            all of them, in their order.

    Returns:
        The number of the new tensor.
    """
    inner = program.tensors[source.tensor]
    if channels is None:
        channels = np.arange(shape[2])
    taken = dataclasses.replace(some_channels(inner, channels), shape=shape)
    out = _added(program, taken)
    window = dataclasses.replace(
        window, top=window.top + source.pads[0], left=window.left + source.pads[2]
    )
    operand, sources = ungathered(program, source.tensor, channels)
    program.operations.append(
        Operation(
            OpCode.GATHER, [operand], out, window,
            arrays={"weights": sources.astype("<u2")}, name=name,
        )
    )  # fmt: skip
    return out


def some_channels(tensor: Tensor, channels: NDArray) -> Tensor:
    """A tensor as its channels of some numbers are."""
    packing = tensor.packing
    if packing is not None and not np.array_equal(
        channels, np.arange(len(packing.mask))
    ):
        packing = dataclasses.replace(packing, mask=packing.mask[channels], layer="")
    return dataclasses.replace(
        tensor,
        shape=(*tensor.shape[:2], len(channels)),
        step=tensor.step[channels],
        low=None if tensor.low is None else tensor.low[channels],
        high=None if tensor.high is None else tensor.high[channels],
        packing=packing,
    )


def groups(kernel: Floats, inputs: int) -> Iterator[tuple[NDArray, NDArray, Floats]]:
    """A grouped convolution as convolutions of at least a block of channels, if it can.

    Kernels compute a block of output channels at once: groups of fewer are computed
    together, with zeros for each other's channels, which costs no more.

    Args:
        kernel: Float array (O, Ky, Kx, channels of a group).
        inputs: Integer. Channels of the input.

    Yields:
        Integer arrays of the channels that a part reads and writes, and its kernel.
    """
    size = kernel.shape[3]
    count = inputs // size
    made = kernel.shape[0] // count
    together = max(1, BLOCK // made)
    for first in range(0, count, together):
        end = min(first + together, count)
        shape = ((end - first) * made, *kernel.shape[1:3], (end - first) * size)
        whole = np.zeros(shape)
        for group in range(end - first):
            outputs = slice(group * made, (group + 1) * made)
            own = kernel[(first + group) * made : (first + group + 1) * made]
            whole[outputs, :, :, group * size : (group + 1) * size] = own
        yield (
            np.arange(first * size, end * size),
            np.arange(first * made, end * made),
            whole,
        )


def ungathered(program: Program, tensor: int, channels: NDArray) -> tuple[int, NDArray]:
    """The tensor whose channels a tensor has in another order, and their numbers.

    Arguments and results are a program's tensor and some of its channels.
    """
    for operation in program.operations:
        if (
            operation.code == OpCode.GATHER
            and not operation.is_output
            and operation.output == tensor
            and operation.window == Window()
            and program.tensors[tensor].shape[:2]
            == program.tensors[operation.operands[0]].shape[:2]
        ):
            sources = operation.arrays["weights"][channels].astype(int)
            return ungathered(program, operation.operands[0], sources)
    return tensor, channels


def _added(program: Program, tensor: Tensor) -> int:
    program.tensors.append(tensor)
    return len(program.tensors) - 1
