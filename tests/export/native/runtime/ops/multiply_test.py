"""MULTIPLY: the runtime is the reference to the bit, and refuses misuse."""

import dataclasses

import pytest
from programs import Builder, Window, check

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import OpCode
from dqa_keras.export.plan.runtime import NativeRuntime, RuntimeFailure
from dqa_keras.export.plan.scheduling import schedule


def product(shape=(6, 9, 21), kinds=("codes", "codes"), gate=False, signed=False):
    """Two convolutions, their product, and what adds to it."""
    build = Builder((*shape[:2], 3))

    def made(kind, window):
        size = (1, 1, shape[2]) if window is None else shape
        tensor = build.codes(size, signed=signed)
        if kind == "wide":
            tensor = build.wide(size)
        if window is not None:
            return build.conv(build.input, tensor, window)
        first = build.conv(build.input, build.codes(shape), Window(1, 1))
        return build.average(first, tensor, Window(*shape[:2]))

    first = made(kinds[0], Window(3, 3, top=1, left=1))
    second = made(kinds[1], None if gate else Window(1, 1))
    both = build.product([first, second], build.codes(shape, signed=signed))
    build.output(build.addition([first, both], build.codes(shape)))
    return build.program


KINDS = [("codes", "codes"), ("wide", "codes"), ("codes", "wide"), ("wide", "wide")]


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("signed", [False, True])
def test_every_path_is_the_reference(kinds, gate, signed):
    check(product(kinds=kinds, gate=gate, signed=signed))


@pytest.mark.parametrize("channels", [1, 16, 70])
@pytest.mark.parametrize("gate", [False, True])
def test_any_number_of_channels(channels, gate):
    check(product((5, 4, channels), gate=gate))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_single_rows_and_columns(size):
    check(product((*size, 18)))
    check(product((*size, 18), gate=True))


def test_threads_share_few_rows_of_many_channels():
    check(product((2, 2, 600), gate=True))


def test_operands_that_it_cannot_take_are_refused():
    def scaled(plan, op):
        plan.buffers[op.links[1].buffer].slot = 0

    def smaller(plan, op):
        plan.buffers[op.links[1].buffer].width -= 1

    def fewer_channels(plan, op):
        plan.buffers[op.links[1].buffer].channels -= 1

    def one(plan, op):
        op.links.pop()

    def three(plan, op):
        op.links.append(dataclasses.replace(op.links[0]))

    for change in (scaled, smaller, fewer_channels, one, three):
        for gate in (False, True):
            plan, constants = schedule(product(gate=gate))
            change(plan, next(op for op in plan.ops if op.code == OpCode.MULTIPLY))
            with pytest.raises(RuntimeFailure, match="the plan is invalid"):
                NativeRuntime(encode(plan), constants)
