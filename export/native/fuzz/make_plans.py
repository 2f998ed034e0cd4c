"""Writes the first inputs of plan_fuzz: small plans with every op, and their constants.

PYTHONPATH=tests/export python export/native/fuzz/make_plans.py FOLDER
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from programs import Builder, Tensor, slid
from skips import SKIP, calibrated, forced, skipping

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.records import Plan, Type
from dqa_keras.export.plan.scheduling import schedule


def programs() -> Iterator[Any]:
    """One program for each group of ops."""
    window = Window(3, 3, top=1, left=1)
    build = Builder((6, 5, 3))
    first = skip = build.conv(build.input, build.codes((6, 5, 20)), window)
    for signed in (False, True, False):
        first = build.conv(first, build.codes((6, 5, 20), signed=signed), window)
    build.output(build.addition([skip, first], build.codes((6, 5, 20), 8, 0)))
    yield build.program

    build = Builder((8, 8, 4))
    first = build.conv(build.input, build.codes((8, 8, 18)), window)
    strided = Window(3, 3, (2, 2), top=1, left=1)
    half = build.conv(first, build.codes((4, 4, 18)), strided, depthwise=True)
    pooled = Tensor((4, 4, 18), Type.CODES, np.ones(18), 0, 63)
    pooled = build.add(pooled, OpCode.MAX_POOL, [first], window=Window(2, 2, (2, 2)))
    mean = build.average(half, build.codes((2, 2, 18)), Window(2, 2, (2, 2)))
    build.output(mean)
    build.output(build.conv(pooled, build.codes((4, 4, 3)), Window()))
    yield build.program

    build = Builder((8, 9, 3))
    first = build.conv(build.input, build.codes((8, 9, 8)), Window())
    first = build.conv(first, build.codes((8, 9, 80)), Window())
    half = build.conv(first, build.codes((4, 5, 80)), strided, depthwise=True)
    build.output(build.conv(half, build.codes((4, 5, 3)), Window()))
    yield build.program

    build = Builder((5, 6, 3))
    first = build.conv(build.input, build.codes((5, 6, 18)), Window())
    for channels in (5, 20):
        first = build.conv(first, build.codes((5, 6, channels)), window, tiles=True)
    build.output(first)
    yield build.program

    build = Builder((4, 4, 5))
    first = build.conv(build.input, build.codes((4, 4, 5)), Window())
    twice = Window(stride=(2, 2))
    near = Tensor((8, 8, 5), Type.CODES, np.ones(5), 0, 127)
    near = build.add(near, OpCode.NEAREST, [first], window=twice)
    smooth = Tensor((8, 8, 5), Type.CODES, np.ones(5), 0, 127)
    smooth = build.add(smooth, OpCode.BILINEAR, [first], window=twice, shift=4)
    both = Tensor((8, 8, 12), Type.CODES, np.ones(12), 0, 127)
    both = build.add(both, OpCode.CONCAT, [near, smooth], places=[0, 6])
    spread = Tensor((16, 16, 3), Type.CODES, np.ones(3), 0, 127)
    spread = build.add(spread, OpCode.DEPTH_TO_SPACE, [both], window=twice)
    shape = slid((16, 16), window, 4)
    wide = Tensor(shape, Type.WIDE, np.ones(4), 0, 30000)
    wide = build.conv(spread, wide, window)
    build.output(build.conv(wide, build.codes(shape), window))
    yield build.program

    build = Builder((5, 4, 3))
    shape = (5, 4, 18)
    first = build.conv(build.input, build.wide(shape), window)
    bent = build.function(first, build.codes(shape), OpCode.PIECEWISE_LINEAR)
    swish = build.function(first, build.codes(shape), OpCode.HARD_SWISH, shift=9000)
    both = build.product([bent, swish], build.codes(shape))
    gate = build.average(both, build.codes((1, 1, 18)), Window(5, 4))
    build.output(build.product([both, gate], build.codes(shape)))
    yield build.program

    build = Builder((5, 6, 3))
    first = build.conv(build.input, build.codes((5, 6, 18)), Window())
    window = Window(stride=(1, 2), top=-1, left=1)
    taken = build.gather(first, (5, 4, 20), window, [7, *range(17, -1, -1), 3])
    build.output(build.conv(taken, build.codes((5, 4, 3)), Window()))
    yield build.program


def coded() -> Iterator[tuple[Plan, bytes, bytes]]:
    """Plans with coded skips: one whose rows find room, one whose do not."""
    program = skipping((9, 10, 6))
    tables = calibrated(program)
    yield *forced(program), tables
    program.tensors[SKIP].packing.coded_bits = (2.0, 1.0)
    yield *forced(program), tables


def main(folder: Path) -> None:
    """Plans the programs and writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    plans = [(*schedule(program), b"") for program in programs()]
    plans += coded()
    missing = set(OpCode) - {op.code for plan, *_ in plans for op in plan.ops}
    if missing:
        raise ValueError(f"plans must have every op. Received: none with {missing}")
    for number, (plan, constants, tables) in enumerate(plans):
        data = encode(plan)
        sizes = struct.pack("<II", len(data), len(tables))
        seed = sizes + data + tables + constants
        (folder / f"plan{number}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
