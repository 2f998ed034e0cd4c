"""GATHER: the runtime is the reference to the bit, and refuses misuse."""

import dataclasses

import numpy as np
import pytest
from programs import Builder, Window, check

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import OpCode
from dqa_keras.export.plan.runtime import NativeRuntime, RuntimeFailure
from dqa_keras.export.plan.scheduling import schedule

SHAPE = (6, 9, 21)

# Channels: all, a part, another order, some twice.
CHANNELS = [
    np.arange(21),
    np.arange(3, 14),
    np.arange(21).reshape(3, 7).T.reshape(-1),
    np.array([5, 5, 20, 0, 1, 2, 0]),
    np.array([4]),
]

# Windows and the sizes behind them: all pixels, a crop, every other one, around.
WINDOWS = [
    (Window(), (6, 9)),
    (Window(top=-2, left=-1), (3, 6)),
    (Window(stride=(2, 3), top=-1), (3, 3)),
    (Window(top=2, left=1), (9, 12)),
    (Window(stride=(2, 2), top=-1, left=1), (4, 5)),
]


def gathered(window=WINDOWS[4], channels=CHANNELS[2], kind="codes", signed=False):
    """A convolution, what is gathered of it, and a convolution of that."""
    build = Builder((*SHAPE[:2], 3))
    tensor = build.wide(SHAPE) if kind == "wide" else build.codes(SHAPE, signed=signed)
    first = build.input
    if kind != "input":
        first = build.conv(first, tensor, Window(3, 3, top=1, left=1))
    else:
        channels = channels % 3
    shape = (*window[1], len(channels))
    taken = build.gather(first, shape, window[0], channels)
    window = Window(3, 3, top=1, left=1)
    build.output(build.conv(taken, build.codes((*shape[:2], 5)), window))
    return build.program


@pytest.mark.parametrize("kind", ["codes", "wide", "input"])
def test_every_window_is_the_reference(kind):
    for window in WINDOWS:
        check(gathered(window, kind=kind, signed=True))


@pytest.mark.parametrize("number", range(len(CHANNELS)))
def test_any_channels_are_the_reference(number):
    for kind in ("codes", "wide"):
        check(gathered(channels=CHANNELS[number], kind=kind))


def test_what_lies_outside_is_refused():
    def channel(plan, op):
        plan.buffers[op.links[0].buffer].channels = 20

    def above(plan, op):
        read = plan.buffers[op.links[0].buffer]
        read.rows, read.size = 1, read.row_bytes
        op.window = dataclasses.replace(op.window, top=1)

    def right(plan, op):
        op.window = dataclasses.replace(op.window, left=-9)

    def left(plan, op):
        op.window = dataclasses.replace(op.window, left=2)

    def gap(plan, op):
        op.window = dataclasses.replace(op.window, stride=(0, 1))

    def weights(plan, op):
        op.weights = plan.constants - 2

    def codes(plan, op):
        plan.buffers[op.output].zero += 1

    for change in (channel, above, right, left, gap, weights, codes):
        plan, constants = schedule(gathered())
        change(plan, next(op for op in plan.ops if op.code == OpCode.GATHER))
        with pytest.raises((RuntimeFailure, ValueError), match=r"invalid|damaged"):
            NativeRuntime(encode(plan), constants)
