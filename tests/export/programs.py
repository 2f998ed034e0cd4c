"""Random programs for the runtime, and how to compare it with the reference."""

import dataclasses

import numpy as np

from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import KNOT_STEP, KNOTS, OpCode, Window
from dqa_keras.export.plan.program import (
    Operation,
    Packing,
    Program,
    Tensor,
    conv_layout,
    depthwise_layout,
    padded,
)
from dqa_keras.export.plan.records import NONE, Kind, Type
from dqa_keras.export.plan.reference import Reference
from dqa_keras.export.plan.runtime import NativeRuntime, machine_isas
from dqa_keras.export.plan.scheduling import schedule


class Builder:
    """Adds operations with random weights to a program that begins with one input."""

    def __init__(self, shape, seed=0):
        self.random = np.random.default_rng(seed)
        self.program = Program([], [], [shape], [], {})
        wide = Tensor(shape, Type.WIDE, np.ones(shape[2]), 0, 20000, slot=0)
        self.input = self.add(wide, OpCode.QUANTIZE_INPUT, [0], shift=20000)

    def add(self, tensor, code, operands, **fields):
        self.program.tensors.append(tensor)
        index = len(self.program.tensors) - 1
        self.program.operations.append(Operation(code, operands, index, **fields))
        return index

    def codes(self, shape, bits=4, extra_bits=2, signed=False):
        """A tensor as a quantizer makes it; `signed` is as in `Packing`."""
        total = bits + extra_bits
        mask = self.random.random(shape[2]) < 0.3
        zero = signed - 1 << extra_bits if signed > 1 else signed << (total - 1)
        packing = Packing(bits, extra_bits, signed, mask)
        step = np.ones(shape[2])
        return Tensor(shape, Type.CODES, step, zero, 2**total - 1, packing=packing)

    def arrays(self, tensor, gain):
        """An epilogue that spreads sums of size 1 / gain over a tensor's codes."""
        channels = tensor.shape[2]
        if tensor.type == Type.WIDE:
            low, high, power = -30000.0, 30000.0, np.ones(channels)
        else:
            p = tensor.packing
            width = np.where(p.mask, p.bits + p.extra_bits, p.bits)
            low = -tensor.zero / 2.0 ** (p.bits + p.extra_bits - width)
            high = low + 2.0**width - 1
            power = np.where(p.mask, 1, 2**p.extra_bits)
        spread = (np.max(high) - np.min(low)) / 2 * gain
        multiplier = spread * self.random.uniform(0.5, 2, channels)
        return {
            "multiplier": padded(multiplier),
            "bias": padded(self.random.normal(size=channels) * 3),
            "low": padded(np.broadcast_to(low, channels)),
            "high": padded(np.broadcast_to(high, channels)),
            "power": padded(power, 1),
        }

    def tensor(self, index):
        return self.program.tensors[index]

    def magnitude(self, index):
        tensor = self.tensor(index)
        # A slot's codes are scaled down to values of about 1 when they are used.
        return 1.0 if tensor.slot != NONE else tensor.peak / 2

    def conv(self, source, tensor, window, depthwise=False, tiles=False):
        inputs = self.tensor(source).shape[2]
        outputs = tensor.shape[2]
        shape = (window.height, window.width, inputs)
        if tiles:
            shape = (winograd.TAPS, winograd.TAPS, inputs)
        shape = shape if depthwise else (outputs, *shape)
        weights = self.random.integers(-127, 128, shape).astype(np.int8)
        terms = window.height * window.width * (1 if depthwise else inputs)
        gain = 1 / (70 * np.sqrt(terms) * self.magnitude(source))
        arrays = self.arrays(tensor, gain)
        arrays["weights"] = (depthwise_layout if depthwise else conv_layout)(weights)
        code = OpCode.DEPTHWISE if depthwise else OpCode.CONV
        if tiles:
            code = OpCode.WINOGRAD
        return self.add(tensor, code, [source], window=window, arrays=arrays)

    def average(self, source, tensor, window):
        arrays = self.arrays(tensor, 1 / self.magnitude(source))
        return self.add(tensor, OpCode.AVERAGE, [source], window=window, arrays=arrays)

    def wide(self, shape):
        """A tensor of wide codes with a step of their own."""
        return Tensor(shape, Type.WIDE, np.ones(shape[2]), 0, 32767)

    def function(self, source, tensor, code, **fields):
        """A function of wide codes, with values of any size."""
        largest = 32767 * (32767 if code == OpCode.HARD_SWISH else KNOT_STEP)
        arrays = self.arrays(tensor, 1 / largest)
        if code == OpCode.PIECEWISE_LINEAR:
            knots = self.random.integers(-(2**15), 2**15, KNOTS)
            arrays["weights"] = knots.astype("<i2")
        return self.add(tensor, code, [source], arrays=arrays, **fields)

    def product(self, sources, tensor):
        gain = 1 / np.prod([self.magnitude(source) for source in sources])
        arrays = self.arrays(tensor, gain)
        return self.add(tensor, OpCode.MULTIPLY, sources, arrays=arrays)

    def gather(self, source, shape, window, channels):
        """Pixels and channels of a tensor."""
        inner = self.tensor(source)
        tensor = dataclasses.replace(
            inner, shape=shape, step=inner.step[channels], packing=None
        )
        if inner.packing is not None:
            mask = inner.packing.mask[channels]
            tensor.packing = dataclasses.replace(inner.packing, mask=mask, layer="")
        arrays = {"weights": np.asarray(channels, "<u2")}
        return self.add(tensor, OpCode.GATHER, [source], window=window, arrays=arrays)

    def addition(self, sources, tensor):
        arrays = self.arrays(tensor, 1.0)
        scales = arrays.pop("multiplier")
        addends = [
            (source, scales / np.float32(self.magnitude(source))) for source in sources
        ]
        return self.add(tensor, OpCode.ADD, [], addends=addends, arrays=arrays)

    def leave(self, codes):
        """Lets the last operation write its sums for the outside, as `ByteCodes`."""
        operation = self.program.operations[-1]
        shape = self.tensor(operation.output).shape
        ones = np.ones(shape[2])
        operation.arrays["low"] = padded(-codes.zero * ones)
        operation.arrays["high"] = padded((255 - codes.zero) * ones)
        operation.arrays["power"] = padded(ones, 1)
        operation.output, operation.is_output = len(self.program.outputs), True
        self.program.byte_outputs[operation.output] = codes
        self.program.outputs.append(shape)

    def output(self, source):
        """Makes a tensor an output, in float32."""
        channels = self.tensor(source).shape[2]
        zeros, largest = np.zeros(channels), np.full(channels, 3e38)
        self.program.outputs.append(self.tensor(source).shape)
        scale = padded(self.random.normal(size=channels))
        self.program.operations.append(
            Operation(
                OpCode.ADD,
                [],
                len(self.program.outputs) - 1,
                addends=[(source, scale)],
                arrays={
                    "bias": padded(zeros),
                    "low": padded(-largest),
                    "high": padded(largest),
                },
                is_output=True,
            )
        )


def slid(shape, window, channels):
    """The shape behind a window, without padding at the far ends."""
    reach = [
        (n - 1) * d + 1
        for n, d in zip((window.height, window.width), window.dilation, strict=True)
    ]
    near = (window.top, window.left)
    sizes = [
        (shape[i] + 2 * near[i] - reach[i]) // window.stride[i] + 1 for i in range(2)
    ]
    return (*sizes, channels)


def check(program, seed=0, plan=None, tables=b""):
    """Every code that the runtime computes is the reference's, and is computed once.

    Returns the plan, and the bytes that each run spilled.
    """
    plan, constants = plan or schedule(program)
    spilled = []
    x = np.random.default_rng(seed).normal(size=program.inputs[0]).astype(np.float32)
    outputs, written = Reference(plan, constants)([x])
    isas = machine_isas()
    cases = [(isa, 1) for isa in isas] + [(isas[-1], 2), (isas[0], 3)]
    for isa, threads in cases:
        run = NativeRuntime(encode(plan), constants, isa, threads, tables)
        rows = []

        def seen(op, row, codes, rows=rows):
            rows.append((op, row))
            np.testing.assert_array_equal(codes, written[op][row], plan.ops[op].code)

        errors = []

        def guarded(op, row, codes, seen=seen, errors=errors):
            try:
                seen(op, row, codes)
            except AssertionError as error:
                errors.append(error)

        run.observe(guarded, plan)
        results = run([x])
        spilled.append(run.spilled_bytes)
        assert not errors, errors[0]
        line_buffers = {
            i
            for i, op in enumerate(plan.ops)
            if plan.buffers[op.output].kind == Kind.LINE_BUFFER
            and not plan.buffers[op.output].group
        }
        assert {op for op, _ in rows} == line_buffers
        assert len(set(rows)) == len(rows), "rows were computed twice"
        for ours, theirs in zip(results, outputs, strict=True):
            np.testing.assert_array_equal(ours, theirs.reshape(-1))
    return plan, spilled


__all__ = ["Builder", "Tensor", "Type", "Window", "check", "slid"]
