"""Programs with a tensor that waits, and the codewords to store it Huffman-coded."""

import dataclasses

import numpy as np
from programs import Builder, slid

from dqa_keras.codec import huffman
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.export.litert import residual_table
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.records import NONE
from dqa_keras.export.plan.reference import Reference
from dqa_keras.export.plan.row_fusion import Stages
from dqa_keras.export.plan.scheduling import planned

SKIP = 1  # the tensor that waits


def skipping(shape, bits=4, extra_bits=2, signed=False, seed=0):
    """A large tensor that waits for twenty convolutions of small ones."""
    build = Builder(shape, seed)
    codes = (bits, extra_bits, signed)
    same = Window(3, 3, top=1, left=1)
    skip = build.conv(build.input, build.codes(shape, *codes), same)
    fours = Window(4, 4, (4, 4), top=2, left=2)
    small = slid(shape, fours, 8)
    last = build.conv(skip, build.codes(small, *codes), fours)
    for _ in range(20):
        last = build.conv(last, build.codes(small, *codes), same)
    # Back to the size of the skip: repeated, and cut by a window without padding.
    large = (small[0] * 4, small[1] * 4, 8)
    near = dataclasses.replace(build.tensor(last), shape=large, packing=None)
    last = build.add(near, OpCode.NEAREST, [last], window=Window(stride=(4, 4)))
    cut = Window(large[0] - shape[0] + 1, large[1] - shape[1] + 1)
    last = build.conv(last, build.codes(shape, *codes), cut)
    build.output(build.addition([skip, last], build.codes(shape, *codes)))
    return build.program


def forced(program, storage="all"):
    """The plan with the skip coded, whether that saves memory or not."""
    return one_by_one(program, {SKIP: storage})


def one_by_one(program, coded):
    """The plan that stores every tensor, some of them coded."""
    stages = Stages(program)
    walks = [stages.walk(number, number + 1) for number in range(stages.count)]
    return planned(program, stages, [stages.cut(walk) for walk in walks], coded)


def calibrated(program, seed=0):
    """Codewords for the quantizers of a program, from one run of it.

    Names the tensors' layers and says how well they compress; returns `DQA_RESIDUAL`.
    """
    plan, constants = one_by_one(program, {})
    x = np.random.default_rng(seed).normal(size=program.inputs[0]).astype(np.float32)
    _, written = Reference(plan, constants)([x])
    stores = {}  # of tensors of the same shape the first one: the skip
    for number, op in enumerate(plan.ops):
        b = plan.buffers[op.output]
        if op.code == OpCode.STORE and b.table != NONE:
            key = (b.height, b.width, b.channels, b.zero)
            stores.setdefault(key, written[number] - b.zero)
    tables = []
    for number, tensor in enumerate(program.tensors):
        p, codes = tensor.packing, stores.get((*tensor.shape, tensor.zero))
        if p is None or codes is None:
            continue
        symbols = (
            (codes >> p.extra_bits) % 2**p.bits,
            codes[..., p.mask] % 2**p.extra_bits,
        )
        counts = [
            np.bincount(symbol.reshape(-1), minlength=2**width) + 1
            for symbol, width in zip(symbols, (p.bits, p.extra_bits), strict=True)
        ]
        lengths = [huffman.code_lengths(count) for count in counts]
        base, residual = map(huffman.mean_length, counts, lengths)
        p.layer, p.coded_bits = f"layer {number}", (base, residual)
        scale = np.ones(tensor.shape[2], np.float32)
        tables.append(
            LayerTable(
                p.layer, p.bits, p.extra_bits, p.signed, tensor.shape, p.mask, scale,
                lengths[1], lengths[0],
            )
        )  # fmt: skip
    return residual_table.encode(tables)
