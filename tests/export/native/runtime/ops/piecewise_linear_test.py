"""PIECEWISE_LINEAR: the runtime is the reference to the bit, and refuses misuse."""

import numpy as np
import pytest
from programs import Builder, Type, Window, check

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import KNOTS, OpCode
from dqa_keras.export.plan.records import NONE
from dqa_keras.export.plan.runtime import NativeRuntime, RuntimeFailure
from dqa_keras.export.plan.scheduling import schedule

PEAK = 32767


def bent(shape=(6, 9, 21), knots=None, **codes):
    """A convolution to wide codes, a function of them, and what adds to it."""
    build = Builder((*shape[:2], 3))
    window = Window(3, 3, top=1, left=1)
    first = build.conv(build.input, build.wide(shape), window)
    out = build.codes(shape, **codes)
    second = build.function(first, out, OpCode.PIECEWISE_LINEAR)
    if knots is not None:
        operation = build.program.operations[-1]
        operation.arrays["weights"] = np.asarray(knots, "<i2")
    build.output(build.addition([first, second], build.codes(shape)))
    return build.program


@pytest.mark.parametrize("channels", [1, 16, 21, 70])
def test_every_path_is_the_reference(channels):
    check(bent((6, 9, channels)))


@pytest.mark.parametrize("signed", [False, True])
def test_all_kinds_of_codes(signed):
    check(bent(bits=8, extra_bits=0, signed=signed))
    check(bent(bits=3, extra_bits=2, signed=signed))


@pytest.mark.parametrize("knot", [-PEAK - 1, PEAK])
def test_the_largest_values_fit(knot):
    check(bent(knots=np.full(KNOTS, knot)))
    check(bent(knots=np.resize([knot, -knot - 1], KNOTS)))


def test_threads_share_few_rows_of_many_channels():
    check(bent((2, 2, 600)))


def test_weights_outside_the_constants_are_refused():
    for offset in (NONE, 2**31, -2):
        refused(lambda plan, op, offset=offset: outside(plan, op, offset))


def outside(plan, op, offset):
    op.weights = plan.constants + offset if offset < 0 else offset


def test_operands_that_it_cannot_take_are_refused():
    def codes(plan, op):
        plan.buffers[op.links[0].buffer].type = Type.CODES

    def scaled(plan, op):
        plan.buffers[op.links[0].buffer].slot = 0

    def smaller(plan, op):
        plan.buffers[op.output].height -= 1

    for change in (codes, scaled, smaller):
        refused(change)


def refused(change):
    plan, constants = schedule(bent())
    op = next(op for op in plan.ops if op.code == OpCode.PIECEWISE_LINEAR)
    change(plan, op)
    with pytest.raises((RuntimeFailure, ValueError), match=r"invalid|outside"):
        NativeRuntime(encode(plan), constants)
