"""Takes some pixels and channels of a tensor, or zeros around it."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.packed.value import Codes
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import Operation, Program, Tensor


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
    packing = inner.packing
    if packing is not None and not np.array_equal(
        channels, np.arange(len(packing.mask))
    ):
        packing = dataclasses.replace(packing, mask=packing.mask[channels], layer="")
    out = _added(
        program,
        dataclasses.replace(
            inner,
            shape=shape,
            step=inner.step[channels],
            low=None if inner.low is None else inner.low[channels],
            high=None if inner.high is None else inner.high[channels],
            packing=packing,
        ),
    )
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
