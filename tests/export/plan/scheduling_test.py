"""What quantizers of linear layers do to memory, over random mobile networks.

A bottleneck is `expand -> depthwise -> project`, and where sizes allow the input of the
block is added. Without such quantizers projections take seven bits and sums are fused.
"""

import dataclasses
import random
from itertools import combinations

import numpy as np
import pytest
from programs import Builder, check, slid

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import BLOCK, OpCode, Window
from dqa_keras.export.plan.records import NONE, Kind
from dqa_keras.export.plan.row_fusion import Stages
from dqa_keras.export.plan.runtime import NativeRuntime, RuntimeFailure
from dqa_keras.export.plan.scheduling import planned, schedule, without_linear
from dqa_keras.export.plan.stage_search import StageSearch, possible_walks

# Measuring what is covered takes longer than the tests themselves.
pytestmark = pytest.mark.no_cover


def mask_of(channels):
    return np.arange(channels) % 10 < 3


def network(seed, linear, bits=4, extra_bits=2):
    choose = random.Random(seed)
    side = choose.choice([16, 24, 32, 48, 64])
    build = Builder((side, side, 3), seed)

    def codes(shape):
        tensor = build.codes(shape, bits, extra_bits)
        tensor.packing.mask = mask_of(shape[2])
        return tensor

    def projected(shape):
        if not linear:
            tensor = build.codes(shape, 7, 0, signed=True)
            tensor.packing.mask = np.zeros(shape[2], bool)
            return tensor
        tensor = build.codes(shape, bits, extra_bits, signed=True)
        tensor.packing.mask, tensor.packing.linear = mask_of(shape[2]), True
        return tensor

    first = Window(3, 3, (2, 2), top=1, left=1)
    shape = slid((side, side), first, 8 * choose.randint(1, 4))
    x = build.conv(build.input, codes(shape), first)
    for _ in range(choose.randint(2, 6)):
        height, width, channels = build.tensor(x).shape
        stride = choose.choice([1, 1, 2]) if height > 6 else 1
        is_residual = stride == 1 and choose.random() < 0.6
        outputs = channels if is_residual else 8 * choose.randint(1, 6)
        taps = choose.choice([3, 5])
        wide = codes((height, width, channels * choose.choice([1, 3, 6])))
        y = build.conv(x, wide, Window())
        deep = Window(taps, taps, (stride, stride), top=taps // 2, left=taps // 2)
        shape = slid((height, width), deep, wide.shape[2])
        y = build.conv(y, codes(shape), deep, depthwise=True)
        y = build.conv(y, projected((*shape[:2], outputs)), Window())
        if is_residual and linear:
            y = build.addition([y, x], projected((*shape[:2], outputs)))
        elif is_residual:
            scale = np.ones(-(-outputs // 16) * 16, np.float32)
            build.program.operations[-1].addends.append((x, scale))
        x = y
    height, width, _ = build.tensor(x).shape
    y = build.conv(x, codes((height, width, 64)), Window())
    y = build.average(y, codes((1, 1, 64)), Window(height, width, (height, width)))
    build.output(build.conv(y, codes((1, 1, 10)), Window()))
    return build.program


def arena(*of, **bits):
    return schedule(network(*of, **bits))[0].arena


@pytest.mark.parametrize("seed", range(16))
def test_quantizing_linear_layers_costs_no_memory(seed):
    assert arena(seed, linear=True) <= arena(seed, linear=False)


@pytest.mark.parametrize("seed", range(4))
def test_without_linear_is_the_program_without_such_quantizers(seed):
    program = without_linear(network(seed, linear=True))
    assert schedule(program)[0].arena == arena(seed, linear=False)


def line_buffers(plan):
    return [b for b in plan.buffers if b.kind == Kind.LINE_BUFFER]


@pytest.mark.parametrize(("taps", "rows"), [(3, 3), (5, 5)])
def test_rows_of_zeros_take_no_memory(taps, rows):
    build = Builder((12, 8, 3))
    pad = taps // 2
    x = build.conv(build.input, build.codes((12, 8, 16)), Window())
    x = build.conv(x, build.codes((12, 8, 8)), Window(taps, taps, top=pad, left=pad))
    build.output(x)
    plan, _ = check(build.program)
    read = [b for b in line_buffers(plan) if b.channels == 16]
    assert [b.rows for b in read] == [rows]


def test_windows_higher_than_the_tensor_take_one_row_of_zeros():
    build = Builder((5, 6, 3))
    x = build.conv(build.input, build.codes((5, 6, 16)), Window())
    wide = Window(3, 3, dilation=(4, 4), top=4, left=4)
    build.output(build.conv(x, build.codes((5, 6, 8)), wide))
    plan, _ = check(build.program)
    assert [b.rows for b in line_buffers(plan) if b.channels == 16] == [6]


def test_rows_that_are_not_needed_at_once_share_memory():
    plan, _ = check(network(3, linear=False))
    for stage in plan.stages:
        written = {
            op.output for op in plan.ops[stage.first : stage.first + stage.count]
        }
        plain = [
            (b.offset, b.offset + b.size)
            for b in (plan.buffers[number] for number in written)
            if b.kind == Kind.LINE_BUFFER and not b.left + b.right
        ]
        if any(a < d and c < b for (a, b), (c, d) in combinations(plain, 2)):
            return
    raise AssertionError("no two line buffers share memory")


def grouped(program, packed=False):
    """A plan whose channels are computed in groups wherever they can be."""
    stages = Stages(program)
    walks = possible_walks(stages)
    chosen = [
        walk
        for walk in walks
        if {n.packed for n in walk.line_buffers.values() if n.group} == {packed}
    ]
    # As slow as need be: others are only taken where there are no groups.
    single = [dataclasses.replace(w, time=1e12) for w in walks if w.end == w.first + 1]
    cuts = StageSearch(stages, chosen + single).fastest()
    plan, constants = planned(program, stages, cuts, {})
    assert any(b.group and (b.table != NONE) == packed for b in plan.buffers)
    return plan, constants


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3, 7])
def test_channels_in_groups_are_the_reference(seed, packed):
    program = network(seed, linear=False)
    check(program, plan=grouped(program, packed))


@pytest.mark.parametrize(("bits", "extra_bits"), [(2, 0), (3, 1), (5, 3)])
def test_packed_groups_of_other_bits_are_the_reference(bits, extra_bits):
    program = network(2, linear=False, bits=bits, extra_bits=extra_bits)
    check(program, plan=grouped(program, packed=True))


def test_rows_of_the_first_window_of_groups_are_computed_one_by_one():
    build = Builder((16, 16, 3))
    taps = Window(3, 3, top=1, left=1)
    x = build.conv(build.input, build.codes((16, 16, 32)), taps)
    x = build.conv(x, build.codes((16, 16, 32)), taps, depthwise=True)
    build.output(build.conv(x, build.codes((16, 16, 8)), Window()))
    plan, _ = check(build.program, plan=grouped(build.program))
    assert [b.rows for b in line_buffers(plan) if b.channels == 3] == [3]


@pytest.mark.parametrize("stride", [1, 2])
def test_groups_of_whole_images_and_of_zeros_are_the_reference(stride):
    build = Builder((9, 8, 3))
    x = build.conv(build.input, build.codes((9, 8, 48)), Window())
    whole = Window(9, 3, (stride, stride), top=stride - 1, left=1)
    shape = slid((9, 8), whole, 48)
    x = build.conv(x, build.codes(shape), whole, depthwise=True)
    build.output(build.conv(x, build.codes((*shape[:2], 8)), Window()))
    check(build.program, plan=grouped(build.program))


def test_groups_that_others_read_are_refused():
    def other_code(plan, number):
        maker = next(op for op in plan.ops if op.output == number)
        plan.ops[plan.ops.index(maker) + 1].code = OpCode.MAX_POOL

    def kept_too_few(plan, number):
        buffer = plan.buffers[number]
        buffer.size //= buffer.rows
        buffer.rows = 1

    def odd_group(plan, number):
        plan.buffers[number].group = BLOCK

    def no_table(plan, number):
        plan.buffers[number].table = len(plan.tables)

    def too_small(plan, number):
        plan.buffers[number].size -= plan.buffers[number].rows

    def other_mask(plan, number):
        plan.tables[plan.buffers[number].table].extra_bits -= 1

    for change, packed in (
        (other_code, False),
        (kept_too_few, False),
        (odd_group, False),
        (no_table, True),
        (too_small, True),
        (other_mask, True),
    ):
        plan, constants = grouped(network(3, linear=False), packed)
        number = next(i for i, b in enumerate(plan.buffers) if b.group and b.rows > 1)
        change(plan, number)
        with pytest.raises(RuntimeFailure, match="invalid"):
            NativeRuntime(encode(plan), constants)


def test_thinner_strips_compute_the_same():
    check(network(1, linear=True))
