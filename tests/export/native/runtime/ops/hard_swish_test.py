"""HARD_SWISH: the runtime is the reference to the bit, and refuses what it must."""

import dataclasses

import numpy as np
import pytest
from programs import Builder, Tensor, Type, Window, check

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import OpCode
from dqa_keras.export.plan.records import NONE
from dqa_keras.export.plan.runtime import NativeRuntime, RuntimeFailure
from dqa_keras.export.plan.scheduling import schedule

PEAK = 32767


def swished(shape=(6, 9, 21), three=9000, gain=1e-8, **codes):
    """A convolution to wide codes, a hard swish, and what adds to it."""
    build = Builder((*shape[:2], 3))
    wide = Tensor(shape, Type.WIDE, np.ones(shape[2]), 0, PEAK)
    first = build.conv(build.input, wide, Window(3, 3, top=1, left=1))
    out = build.codes(shape, **codes)
    second = build.add(
        out, OpCode.HARD_SWISH, [first], arrays=build.arrays(out, gain), shift=three
    )
    build.output(build.addition([first, second], build.codes(shape)))
    return build.program


@pytest.mark.parametrize("channels", [1, 16, 21, 70])
@pytest.mark.parametrize("three", [1, 9000, PEAK])
def test_every_path_is_the_reference(channels, three):
    check(swished((6, 9, channels), three))


@pytest.mark.parametrize("signed", [False, True])
def test_all_kinds_of_codes(signed):
    check(swished(bits=8, extra_bits=0, signed=signed))
    check(swished(bits=3, extra_bits=2, signed=signed))


def test_threads_share_few_rows_of_many_channels():
    check(swished((2, 2, 600)))


def test_the_integers_are_a_hard_swish():
    step = 4 / PEAK
    q = np.arange(-PEAK, PEAK + 1)
    three = round(3 / step)
    ours = q * np.clip(q + three, 0, 2 * three) * step**2 / 6
    x = q * step
    np.testing.assert_allclose(ours, x * np.clip(x + 3, 0, 6) / 6, atol=step)


@pytest.mark.parametrize("three", [0, PEAK + 1, 2**31, NONE])
def test_a_three_outside_the_codes_is_refused(three):
    refused(lambda plan, op: setattr(op, "shift", three))


def test_operands_that_it_cannot_take_are_refused():
    def codes(plan, op):
        buffer = plan.buffers[op.links[0].buffer]
        buffer.type = Type.CODES

    def scaled(plan, op):
        plan.buffers[op.links[0].buffer].slot = 0

    def smaller(plan, op):
        plan.buffers[op.output].height -= 1

    def two(plan, op):
        op.links.append(dataclasses.replace(op.links[0]))

    def none(plan, op):
        op.links[0].addend = True

    def outside(plan, op):
        op.multiplier = plan.constants - 4

    for change in (codes, scaled, smaller, two, none, outside):
        refused(change)


def refused(change):
    plan, constants = schedule(swished())
    op = next(op for op in plan.ops if op.code == OpCode.HARD_SWISH)
    change(plan, op)
    with pytest.raises(RuntimeFailure, match="the plan is invalid"):
        NativeRuntime(encode(plan), constants)
