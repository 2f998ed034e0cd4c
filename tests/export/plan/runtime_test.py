"""The compiled runtime against the NumPy reference, to the bit."""

import dataclasses
import struct
import threading
import zlib
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from programs import Builder, Tensor, Type, check, slid
from skips import one_by_one

from dqa_keras.export.plan.encoding import VERSION, PlanError, decode, describe, encode
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import ByteCodes
from dqa_keras.export.plan.records import Kind
from dqa_keras.export.plan.runtime import (
    ISAS,
    NativeRuntime,
    RuntimeFailure,
    machine_isas,
)
from dqa_keras.export.plan.scheduling import schedule


def one_conv(shape=(9, 7, 5), channels=20, window=None, **codes):
    build = Builder(shape)
    first = build.conv(build.input, build.codes((*shape[:2], 12), **codes), Window())
    window = window or Window(3, 3, top=1, left=1)
    out = build.conv(first, build.codes(slid(shape, window, channels), **codes), window)
    build.output(out)
    return build.program


@pytest.mark.parametrize(
    "bits", [(1, 0), (2, 1), (3, 2), (4, 2), (4, 4), (5, 3), (8, 0)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_convolutions_of_all_code_widths(bits, signed):
    check(one_conv(bits=bits[0], extra_bits=bits[1], signed=signed))


@pytest.mark.parametrize("bits", [(2, 1), (3, 2), (4, 2), (7, 0)])
def test_codes_with_a_zero_point(bits):
    window = Window(3, 3, (2, 2), top=1, left=1)
    for signed in {2, 2 ** (bits[0] - 1)}:
        codes = {"bits": bits[0], "extra_bits": bits[1], "signed": signed}
        check(one_conv(window=window, **codes))


@pytest.mark.parametrize(
    "window",
    [
        Window(),
        Window(3, 3, (2, 2), (1, 1), 1, 1),
        Window(3, 3, (1, 1), (2, 3), 2, 3),
        Window(5, 1, (1, 2), (1, 1), 2, 0),
        Window(2, 4, (3, 1), (1, 1), 0, 2),
        Window(9, 7),
    ],
)
def test_windows(window):
    check(one_conv(window=window))


@pytest.mark.parametrize("kind", ["combine", "conv", "depthwise"])
@pytest.mark.parametrize("channels", [1, 16, 37, 64, 70])
def test_outputs_as_bytes(kind, channels):
    build = Builder((6, 7, channels))
    shape = (6, 7, channels)
    out = build.conv(build.input, build.codes(shape), Window())
    if kind == "combine":
        build.addition([out], build.codes(shape))
    else:
        window = Window(3, 3, top=1, left=1)
        build.conv(out, build.codes(shape), window, depthwise=kind == "depthwise")
    build.leave(ByteCodes(0.1, 100))
    plan, _ = check(build.program)
    assert plan.buffers[1].type == Type.CODES


@pytest.mark.parametrize("window", [Window(3, 3, (2, 1), (1, 1), 1, 1), Window(2, 5)])
@pytest.mark.parametrize("channels", [1, 16, 37])
def test_depthwise(window, channels):
    build = Builder((8, 9, channels))
    first = build.conv(build.input, build.codes((8, 9, channels), 5, 3), Window())
    shape = slid((8, 9), window, channels)
    out = build.conv(first, build.codes(shape), window, depthwise=True)
    wide = build.conv(build.input, build.codes(shape), window, depthwise=True)
    build.output(out)
    build.output(wide)
    check(build.program)


@pytest.mark.parametrize(
    "window", [Window(2, 2, (2, 2)), Window(3, 3, (2, 2), top=1, left=1)]
)
def test_pools(window):
    build = Builder((10, 10, 6))
    for tensor in (build.codes((10, 10, 6)), build.codes((10, 10, 6), 3, 1, True)):
        source = build.conv(build.input, tensor, Window())
        shape = slid((10, 10), window, 6)
        same = dataclasses.replace(tensor, shape=shape)
        build.output(build.add(same, OpCode.MAX_POOL, [source], window=window))
        build.output(build.average(source, build.codes(shape), window))
    shape = slid((10, 10), window, 6)
    wide = dataclasses.replace(build.tensor(build.input), shape=shape)
    build.output(build.add(wide, OpCode.MAX_POOL, [build.input], window=window))
    check(build.program)


def test_sums_of_codes_and_wide_values():
    build = Builder((6, 5, 18))
    first = build.conv(build.input, build.codes((6, 5, 18), signed=True), Window())
    wide = Tensor((6, 5, 18), Type.WIDE, np.ones(18), 0, 30000)
    second = build.conv(first, wide, Window())
    total = build.addition([first, second], build.codes((6, 5, 18)))
    build.output(build.addition([total, build.input], build.codes((6, 5, 18))))
    check(build.program)


@pytest.mark.parametrize("factors", [(2, 2), (1, 3), (8, 5)])
@pytest.mark.parametrize("bits", [(4, 2), (8, 0)])
def test_interpolation(factors, bits):
    build = Builder((3, 4, 37))
    first = build.conv(build.input, build.codes((3, 4, 37), *bits), Window())
    window = Window(stride=factors)
    shape = (3 * factors[0], 4 * factors[1], 37)
    total = build.tensor(first).peak * 4 * factors[0] * factors[1]
    for type_, peak in ((Type.CODES, 255), (Type.WIDE, 32767)):
        shift = max(0, (total // peak).bit_length())
        out = Tensor(shape, type_, np.ones(37), 0, peak)
        build.output(
            build.add(out, OpCode.BILINEAR, [first], window=window, shift=shift)
        )
    check(build.program)


def test_enlarging_and_joining():
    build = Builder((4, 6, 5))
    first = build.conv(build.input, build.codes((4, 6, 5)), Window())
    window = Window(stride=(2, 3))
    shape = (8, 18, 5)
    near = build.add(
        dataclasses.replace(build.tensor(first), shape=shape),
        OpCode.NEAREST, [first], window=window,
    )  # fmt: skip
    smooth = Tensor(shape, Type.CODES, np.ones(5), 0, 127)
    linear = build.add(smooth, OpCode.BILINEAR, [first], window=window, shift=4)
    joined = Tensor((8, 18, 13), Type.CODES, np.ones(13), 0, 127)
    both = build.add(joined, OpCode.CONCAT, [near, linear], places=[1, 7])
    build.output(build.conv(both, build.codes((8, 18, 3)), Window(3, 3, top=1, left=1)))
    check(build.program)


def test_a_skip_across_stages_is_stored_packed():
    build = Builder((32, 32, 8))
    window = Window(3, 3, top=1, left=1)
    skip = last = build.conv(build.input, build.codes((32, 32, 8)), window)
    for _ in range(20):
        last = build.conv(last, build.codes((32, 32, 8)), window)
    build.output(build.addition([skip, last], build.codes((32, 32, 8))))
    plan, _ = check(build.program)
    stored = [b for b in plan.buffers if b.kind == Kind.STORED]
    assert stored
    assert plan.arena < 2.2 * stored[0].size + sum(
        b.size for b in plan.buffers if b.kind == Kind.LINE_BUFFER
    )


@pytest.mark.parametrize("shape", [(8, 18, 5), (7, 16, 5)])
def test_channels_become_pixels(shape):
    build = Builder((4, 6, 5))
    for out in (build.codes(shape), Tensor(shape, Type.WIDE, np.ones(5), 0, 30000)):
        inner = dataclasses.replace(out, shape=(4, 6, 30), packing=None)
        if out.type == Type.CODES:
            inner = build.codes((4, 6, 30), signed=True)
            out = dataclasses.replace(out, zero=inner.zero, packing=None)
        first = build.conv(build.input, inner, Window())
        window = Window(stride=(2, 3))
        spread = build.add(out, OpCode.DEPTH_TO_SPACE, [first], window=window)
        build.output(build.conv(spread, build.codes((*shape[:2], 3)), Window()))
    check(build.program)


def test_threads_share_the_work_where_rows_are_few():
    build = Builder((3, 3, 8))
    wide = build.conv(build.input, build.codes((3, 3, 500)), Window())
    wide = build.conv(wide, build.codes((3, 3, 500)), Window(3, 3, top=1, left=1),
                      depthwise=True)  # fmt: skip
    wide = build.conv(wide, build.codes((3, 3, 610)), Window())
    mean = build.average(wide, build.codes((1, 1, 610)), Window(3, 3, (3, 3)))
    build.output(build.conv(mean, build.codes((1, 1, 40)), Window()))
    check(build.program)


_KINDS = ("conv", "depthwise", "add", "average", "max_pool", "grow", "spread", "concat")


@st.composite
def programs(draw):
    """A random graph: odd sizes, strides, dilations, paddings, channel counts."""
    side = st.integers(1, 14)
    channels = st.integers(1, 40)
    build = Builder(
        (draw(side), draw(side), draw(st.integers(1, 6))), draw(st.integers(0, 999))
    )
    there = [build.input]

    def codes(shape):
        bits = draw(st.integers(1, 8))
        extra = draw(st.integers(0, min(4, 8 - bits)))
        return build.codes(shape, bits, extra, draw(st.booleans()))

    def window(shape, dilated=True):
        sizes = [draw(st.integers(1, 4)) for _ in range(2)]
        dilation = [draw(st.integers(1, 2)) if dilated else 1 for _ in range(2)]
        pads = [draw(st.integers(0, n - 1)) for n in sizes]
        for i in range(2):
            if (sizes[i] - 1) * dilation[i] + 1 > shape[i] + 2 * pads[i]:
                sizes[i], dilation[i], pads[i] = 1, 1, 0
        stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
        return Window(*sizes, stride, tuple(dilation), *pads)

    for _ in range(draw(st.integers(1, 9))):
        source = draw(st.sampled_from(there[-3:]))
        tensor = build.tensor(source)
        shape = tensor.shape
        kind = draw(st.sampled_from(_KINDS))
        if kind == "conv":
            w, tiles = window(shape), False
            if min(shape[:2]) > 1 and tensor.type == Type.CODES and tensor.peak <= 63:
                tiles = draw(st.booleans())
            if tiles:
                w = Window(3, 3, top=draw(st.integers(1, 2)), left=1)
            out = codes(slid(shape, w, draw(channels)))
            there.append(build.conv(source, out, w, tiles=tiles))
        elif kind == "depthwise":
            w = window(shape)
            out = codes(slid(shape, w, shape[2]))
            there.append(build.conv(source, out, w, depthwise=True))
        elif kind == "add":
            other = draw(
                st.sampled_from([t for t in there if build.tensor(t).shape == shape])
            )
            there.append(build.addition([source, other], codes(shape)))
        elif kind in ("average", "max_pool"):
            w = window(shape, dilated=False)
            if (slid(shape, w, 1)[0] - 1) * w.stride[0] - w.top >= shape[0] or (
                slid(shape, w, 1)[1] - 1
            ) * w.stride[1] - w.left >= shape[1]:
                continue
            smaller = slid(shape, w, shape[2])
            if kind == "average":
                there.append(build.average(source, codes(smaller), w))
            else:
                same = dataclasses.replace(tensor, shape=smaller)
                there.append(build.add(same, OpCode.MAX_POOL, [source], window=w))
        elif kind == "grow" and max(shape) <= 20:
            w = Window(stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))))
            larger = (shape[0] * w.stride[0], shape[1] * w.stride[1], shape[2])
            same = dataclasses.replace(tensor, shape=larger)
            there.append(build.add(same, OpCode.NEAREST, [source], window=w))
        elif kind == "spread" and max(shape) <= 20:
            w = Window(stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))))
            count = w.stride[0] * w.stride[1]
            inner = codes((*shape[:2], count * draw(st.integers(1, 5))))
            first = build.conv(source, inner, Window())
            height = shape[0] * w.stride[0] - draw(st.integers(0, w.stride[0] - 1))
            width = shape[1] * w.stride[1] - draw(st.integers(0, w.stride[1] - 1))
            out = dataclasses.replace(
                inner, shape=(height, width, inner.shape[2] // count), packing=None
            )
            there.append(build.add(out, OpCode.DEPTH_TO_SPACE, [first], window=w))
        elif kind == "concat":
            front = draw(st.integers(0, 3))
            grown = dataclasses.replace(
                tensor,
                shape=(*shape[:2], shape[2] + front + 1),
                step=np.ones(shape[2] + front + 1),
                packing=None,
            )
            there.append(build.add(grown, OpCode.CONCAT, [source], places=[front]))
    build.output(there[-1])
    if draw(st.booleans()):
        build.output(draw(st.sampled_from(there)))
    return build.program


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(programs())
def test_random_graphs(program):
    check(program)


@pytest.fixture(scope="module")
def small():
    plan, constants = schedule(one_conv())
    return plan, encode(plan), constants


def resealed(data):
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def test_plans_survive_the_file(small):
    plan, data, _ = small
    assert decode(data) == plan
    assert "conv 3x3" in describe(plan)


def test_a_damaged_plan_is_refused(small):
    _, data, constants = small
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 0x40
        with pytest.raises(RuntimeFailure):
            NativeRuntime(bytes(broken), constants)
        with pytest.raises(PlanError):
            decode(bytes(broken))


def test_a_wrong_plan_with_a_right_checksum_does_no_harm(small):
    """What passes the checks runs without touching memory outside its own."""
    _, data, constants = small
    random = np.random.default_rng(0)
    accepted = 0
    for _ in range(3000):
        broken = bytearray(data)
        for _ in range(random.integers(1, 4)):
            broken[random.integers(8, len(data) - 4)] = random.integers(256)
        try:
            run = NativeRuntime(resealed(bytes(broken)), constants)
        except (RuntimeFailure, MemoryError):
            continue
        if run.arena_bytes > 2**24:
            continue
        accepted += 1
        run([np.zeros(run_size, np.float32) for run_size in run.input_sizes])
    assert accepted > 10


def test_a_newer_plan_says_so(small):
    _, data, constants = small
    newer = resealed(data[:4] + struct.pack("<H", VERSION + 1) + data[6:])
    with pytest.raises(
        RuntimeFailure,
        match=rf"reads plans of version {VERSION}.*version {VERSION + 1}",
    ):
        NativeRuntime(newer, constants)
    with pytest.raises(PlanError, match=f"must be {VERSION}. Received: {VERSION + 1}"):
        decode(newer)


def test_weights_of_the_wrong_size_are_refused(small):
    _, data, constants = small
    with pytest.raises(RuntimeFailure, match=r"weights must have .* Received"):
        NativeRuntime(data, constants[:-16])


def test_threads_have_line_buffers_of_their_own(small):
    _, data, constants = small
    assert (
        NativeRuntime(data, constants, threads=2).arena_bytes
        > NativeRuntime(data, constants).arena_bytes
    )
    with pytest.raises(RuntimeFailure, match=r"threads must be in 1\.\.64.*: 65"):
        NativeRuntime(data, constants, threads=65)


def test_threads_meet_inside_a_strip():
    plan, constants = schedule(one_conv((9, 7, 5), window=Window()))
    stages = [dataclasses.replace(stage, steps=3) for stage in plan.stages]
    plan = dataclasses.replace(plan, stages=stages)
    run = NativeRuntime(encode(plan), constants, threads=2)
    rows = {}

    def seen(op, row, codes):
        if plan.ops[op].code == OpCode.QUANTIZE_INPUT:
            rows.setdefault(threading.get_ident(), []).append(row)

    run.observe(seen, plan)
    run([np.zeros(size, np.float32) for size in run.input_sizes])
    assert sorted(rows.values()) == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]


def test_instruction_sets_must_be_there(small):
    _, data, constants = small
    missing = next(isa for isa in ISAS if isa not in ("auto", *machine_isas()))
    with pytest.raises(RuntimeFailure, match="lacks instruction set"):
        NativeRuntime(data, constants, missing)


def test_a_short_plan_is_refused(small):
    _, data, constants = small
    for size in (0, 3, 40, len(data) - 1):
        with pytest.raises(RuntimeFailure):
            NativeRuntime(data[:size], constants)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_must_be_finite(small, value):
    _, data, constants = small
    x = np.zeros((9, 7, 5), np.float32)
    x[4, 3, 2] = value
    with pytest.raises(RuntimeFailure, match="inputs must be finite"):
        NativeRuntime(data, constants)([x])


def anonymous_bytes():
    """What this process has of memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise ValueError("no RssAnon")


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)
def test_a_runtime_takes_little_besides_its_arena():
    """Tensors that are stored raw have no Huffman tables: 116 KB each."""
    build = Builder((4, 4, 8))
    last = build.conv(build.input, build.codes((4, 4, 8)), Window())
    for _ in range(64):
        last = build.conv(last, build.codes((4, 4, 8)), Window())
    build.output(last)
    plan, constants = one_by_one(build.program, {})
    assert len(plan.tables) > 64
    encoded = encode(plan)
    kept = [NativeRuntime(encoded, constants)]  # what is only needed once
    before = anonymous_bytes()
    kept.append(NativeRuntime(encoded, constants))
    assert anonymous_bytes() - before < 2**20 + 2 * kept[1].arena_bytes
