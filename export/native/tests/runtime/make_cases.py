"""Writes plans with inputs and what the NumPy reference makes of them.

    PYTHONPATH=tests/export python export/native/tests/runtime/make_cases.py FOLDER

For plan_test.cc, which runs them where there is no Python.
"""

import struct
import sys
from pathlib import Path

import numpy as np
from programs import Builder, slid
from skips import SKIP, calibrated, forced, skipping

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import ByteCodes, Program, Tensor
from dqa_keras.export.plan.records import Plan, Type
from dqa_keras.export.plan.reference import Reference
from dqa_keras.export.plan.scheduling import schedule

SAME = Window(3, 3, top=1, left=1)


def residual(bits: int, extra_bits: int, signed: int, channels: int) -> Builder:
    """Convolutions of every kind around an addition; stored skips, in place."""
    build = Builder((21, 19, 3))
    codes = (bits, extra_bits, signed)
    x = build.conv(build.input, build.codes((21, 19, channels), *codes), SAME)
    for _ in range(8):
        y = build.conv(x, build.codes((21, 19, 3 * channels), *codes), Window())
        y = build.conv(
            y, build.codes((21, 19, 3 * channels), *codes), SAME, depthwise=True
        )
        y = build.conv(y, build.codes((21, 19, channels), *codes), Window())
        x = build.addition([x, y], build.codes((21, 19, channels), *codes))
    small = Window(3, 3, (2, 2), top=1, left=1)
    shape = slid((21, 19), small, channels)
    down = build.conv(x, build.codes(shape, *codes), small, depthwise=True)
    pooled = build.add(
        build.codes(slid(shape, Window(2, 2, (2, 2)), channels), *codes),
        OpCode.MAX_POOL, [down], window=Window(2, 2, (2, 2)),
    )  # fmt: skip
    build.output(pooled)
    build.output(x)
    return build


def narrow() -> Builder:
    """Few pixels of many channels: threads share the work of each op.

    A block's weights of the first large convolution just fit where matrices take them
    from, those of the second do not.
    """
    build = Builder((4, 7, 8))
    x = build.conv(build.input, build.codes((4, 7, 448)), Window())
    x = build.conv(x, build.codes((4, 7, 448)), SAME, depthwise=True)
    x = build.conv(x, build.codes((4, 7, 520)), SAME)
    x = build.conv(x, build.codes((4, 7, 70)), SAME)
    x = build.average(x, build.codes((1, 1, 70)), Window(4, 7, (4, 7)))
    build.output(build.conv(x, build.codes((1, 1, 300)), Window()))
    return build


def tiled() -> Builder:
    """Convolutions in tiles: one behind the other, of every remainder, around sums."""
    build = Builder((21, 19, 3))
    x = build.conv(build.input, build.codes((21, 19, 20)), SAME)
    for channels in (36, 100, 70):
        y = build.conv(x, build.codes((21, 19, channels)), SAME, tiles=True)
        y = build.conv(y, build.codes((21, 19, 20)), SAME, tiles=True)
        x = build.addition([x, y], build.codes((21, 19, 20)))
    build.output(build.conv(x, build.codes((19, 17, 5)), Window(3, 3), tiles=True))
    return build


def tiled_narrow() -> Builder:
    """Few tiles of many channels, signed: threads share the work of each op."""
    build = Builder((4, 5, 8))
    x = build.conv(build.input, build.codes((4, 5, 300), signed=True), Window())
    x = build.conv(x, build.codes((4, 5, 330), signed=True), SAME, tiles=True)
    build.output(x)
    return build


def windows() -> Builder:
    """Depthwise windows of each size and step; images enlarged into bytes and words."""
    build = Builder((13, 22, 16))
    x = build.conv(build.input, build.codes((13, 22, 48)), Window())
    for taps, stride in ((3, (1, 1)), (5, (1, 1)), (3, (2, 2)), (5, (2, 2))):
        near = taps // 2
        window = Window(taps, taps, stride, top=near, left=near)
        shape = slid(build.tensor(x).shape, window, 48)
        x = build.conv(x, build.codes(shape), window, depthwise=True)
    twice = Window(stride=(2, 2))
    large = (2 * shape[0], 2 * shape[1])
    codes = Tensor((*large, 48), Type.CODES, np.ones(48), 0, 63)
    words = Tensor((*large, 48), Type.WIDE, np.ones(48), 0, 63 * 16)
    smooth = build.add(codes, OpCode.BILINEAR, [x], window=twice, shift=4)
    wide = build.add(words, OpCode.BILINEAR, [x], window=twice, shift=0)
    y = build.conv(wide, build.codes((*large, 24)), SAME)
    z = build.conv(smooth, build.codes((*large, 24)), SAME)
    both = Tensor((*large, 24), Type.WIDE, np.ones(24), 0, 30000)
    build.output(build.addition([y, z], both))
    return build


def gated() -> Builder:
    """Functions of wide codes, and products: with a map, and with a gate."""
    build = Builder((13, 11, 3))
    shape = (13, 11, 37)
    x = build.conv(build.input, build.wide(shape), SAME)
    bent = build.function(x, build.codes(shape), OpCode.PIECEWISE_LINEAR)
    x = build.conv(bent, build.wide(shape), Window())
    swish = build.function(
        x, build.codes(shape, signed=True), OpCode.HARD_SWISH, shift=9000
    )
    both = build.product([bent, swish], build.codes(shape, signed=True))
    rows = build.average(both, build.wide((13, 1, 37)), Window(1, 11))
    gate = build.average(rows, build.codes((1, 1, 37)), Window(13, 1))
    build.output(build.product([both, gate], build.codes(shape, signed=True)))
    return build


def lines(bits: int, extra_bits: int, signed: int) -> Builder:
    """A stored skip whose rows are whole vectors of codes."""
    build = Builder((9, 12, 3))
    codes = (bits, extra_bits, signed)
    skip = build.conv(build.input, build.codes((9, 12, 20), *codes), SAME)
    x = skip
    for _ in range(4):
        x = build.conv(x, build.codes((9, 12, 32), *codes), SAME)
        x = build.conv(x, build.codes((9, 12, 20), *codes), SAME)
    build.output(build.addition([skip, x], build.codes((9, 12, 20), *codes)))
    return build


def left(zero: int, channels: int) -> Builder:
    """Outputs as LiteRT's bytes."""
    build = Builder((9, 11, 3))
    x = build.conv(build.input, build.codes((9, 11, 32)), SAME)
    build.conv(x, build.codes((9, 11, channels)), SAME)
    build.leave(ByteCodes(0.1, zero))
    return build


def coded(share: float) -> tuple[Program, bytes, tuple[Plan, bytes]]:
    """A coded skip whose rows need `1 / share` of the room that they have."""
    program = skipping((21, 19, 20))
    tables = calibrated(program)
    packing = program.tensors[SKIP].packing
    base, residual = packing.coded_bits
    packing.coded_bits = (share * base, share * residual)
    return program, tables, forced(program)


def main(folder: Path) -> None:
    """Writes a file for each plan."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = {
        "codes": residual(4, 2, False, 20).program,
        "signed": residual(5, 2, True, 16).program,
        "tail": residual(4, 2, 3, 20).program,
        "tail_lines": lines(4, 2, 4).program,
        "eight": residual(8, 0, False, 33).program,
        "narrow": narrow().program,
        "tiled": tiled().program,
        "tiled_narrow": tiled_narrow().program,
        "windows": windows().program,
        "gated": gated().program,
        **{
            f"lines_{bits}_{extra}": lines(bits, extra, signed).program
            for bits, extra, signed in (
                (4, 0, False),
                (4, 1, True),
                (4, 2, False),
                (4, 4, False),
                (3, 2, True),
                (6, 2, False),
                (7, 0, True),
                (8, 0, False),
            )
        },
        "left_100": left(100, 32).program,
        "left_128": left(128, 20).program,
    }
    planned = {
        name: (program, b"", schedule(program)) for name, program in programs.items()
    }
    planned |= {"coded": coded(1.0), "spilled": coded(0.8)}
    for name, (program, tables, (plan, constants)) in planned.items():
        x = np.random.default_rng(0).normal(size=program.inputs[0])
        x = x.astype(np.float32)
        outputs, _ = Reference(plan, constants)([x])
        for number in program.byte_outputs:
            outputs[number] = outputs[number].astype(np.uint8)
        blocks = [encode(plan), constants, tables, bytes([1, len(outputs)])]
        blocks += [x.tobytes()]
        blocks += [np.ascontiguousarray(output).tobytes() for output in outputs]
        with (folder / f"{name}.case").open("wb") as file:
            for block in blocks:
                file.write(struct.pack("<Q", len(block)) + block)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
