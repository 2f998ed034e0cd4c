"""Turns a region's nodes into integer operations with quantized weights.

A chain such as convolution, sum, ReLU, quantizer becomes one operation: the integer sum
is scaled, added to, clipped and rounded in one go, so nothing in between needs memory.
What no quantizer rounds but must be kept, a linear bottleneck for instance, gets codes
of its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.analysis.storage import mean_code_bits
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.codec.symbols import code_limits
from dqa_keras.export.litert.model_reader import Node, Unsupported, check_window
from dqa_keras.export.packed.op_reader import Reader
from dqa_keras.export.packed.partition import Region
from dqa_keras.export.packed.values import Codes, Emitter, Input, Sum
from dqa_keras.export.plan.ops import OpCode
from dqa_keras.export.plan.program import (
    ByteCodes,
    Floats,
    Operation,
    Packing,
    Program,
    Tensor,
)
from dqa_keras.export.plan.records import NONE, Type
from dqa_keras.layers import Quantizer

# Interpolated codes are rounded to this many levels: with more, sums of products would
# have to leave 16 bits after every step.
_BILINEAR_PEAK = 127


def _packing(layer: Quantizer, table: LayerTable) -> Packing:
    """How a quantizer prescribes that its codes are stored."""
    return Packing(
        table.bits,
        table.extra_bits,
        table.signed,
        table.mask,
        # A plan has a byte for the length of a name.
        table.name if len(table.name.encode()) < 256 else "",
        mean_code_bits(layer),
    )


class _Lowering(Emitter):
    """Lowers the nodes of one region."""

    def run(self) -> Program:
        for number, tensor in enumerate(self._region.inputs):
            channels = self.program.inputs[number][2]
            self._values[tensor] = Input(number, np.ones(channels), np.zeros(channels))
        for node in self._region.nodes:
            try:
                self._values[node.output] = getattr(self, f"_{node.kind}")(node)
            except Unsupported as reason:
                raise Unsupported(str(reason), node) from reason
        for number, tensor in enumerate(self._region.outputs):
            try:
                self._emit_output(self._outside(tensor), number, self._name(tensor))
            except Unsupported as reason:
                made = (n for n in self._region.nodes if n.output == tensor)
                raise Unsupported(str(reason), next(made)) from reason
        return self.program

    def _outside(self, tensor: int) -> Sum:
        """A value as numbers that leave the region."""
        value = self._values[tensor]
        if (
            isinstance(value, Sum)
            and not value.is_transposed
            and not self._uses.get(tensor, 0)
        ):
            return value
        return self._scaled(self._codes(tensor))

    def _windowed(self, node: Node) -> Sum:
        source = self._values[node.inputs[0]]
        window = node.window
        pads: tuple[int, ...] = (0, 0, 0, 0)
        # An average counts zeros that are padded, but not those of its own window.
        if isinstance(source, Codes) and node.kind != "average":
            operand, pads = source.tensor, source.pads
        else:
            operand = self._codes(node.inputs[0])
        window = dataclasses.replace(
            window, top=window.top + pads[0], left=window.left + pads[2]
        )
        check_window(node.kind, window)
        shape = self._reader.shape(node.output)
        bias = node.arrays.get("bias", np.zeros(shape[2]))
        value = Sum(shape, node, operand, window, np.ones(shape[2]), bias, [])
        value.low, value.high = node.clamp
        return value

    _conv = _depthwise = _average = _transpose = _windowed

    def _open(self, tensor: int) -> Sum:
        """A value that may still be scaled and added to."""
        value = self._values[tensor]
        if isinstance(value, Sum) and self._alone(tensor) and not value.is_clipped:
            return value
        return self._scaled(self._codes(tensor))

    def _addable(self, tensor: int) -> Sum:
        """A value that may still be added to."""
        value = self._open(tensor)
        return self._scaled(self._codes(tensor)) if value.is_transposed else value

    def _add(self, node: Node) -> Sum:
        first, second = node.inputs
        value = self._addable(first)
        if value.operand is None and first != second:
            other = self._addable(second)
            if other.operand is not None:
                value, second = other, first
        if len(value.addends) > 1 or (value.operand is not None and value.addends):
            value = self._scaled(self._keep(value, first))
        addend = (self._codes(second), np.ones(value.shape[2]))
        return dataclasses.replace(
            value,
            addends=[*value.addends, addend],
            low=node.clamp[0],
            high=node.clamp[1],
        )

    def _affine(self, node: Node) -> Sum | Input:
        (tensor,) = node.inputs
        value = self._values[tensor]
        channels = self._reader.shape(node.output)[2]
        scale = node.arrays.get("scale", np.ones(channels))
        offset = node.arrays.get("offset", np.zeros(channels))
        unclipped = node.clamp == (-np.inf, np.inf)
        if isinstance(value, Input) and self._alone(tensor) and unclipped:
            return Input(
                value.number, value.scale * scale, value.offset * scale + offset
            )
        value = self._open(tensor)
        return dataclasses.replace(
            value,
            gain=value.gain * scale,
            bias=value.bias * scale + offset,
            addends=[(t, gain * scale) for t, gain in value.addends],
            low=node.clamp[0],
            high=node.clamp[1],
        )

    def _clamp(self, node: Node) -> Sum:
        (tensor,) = node.inputs
        value = self._values[tensor]
        if not isinstance(value, Sum) or not self._alone(tensor):
            value = self._scaled(self._codes(tensor))
        return dataclasses.replace(
            value,
            low=max(value.low, node.clamp[0]),
            high=min(value.high, node.clamp[1]),
        )

    def _quantize(self, node: Node) -> Codes:
        (tensor,) = node.inputs
        value = self._values[tensor]
        if not isinstance(value, Sum) or not self._alone(tensor):
            value = self._scaled(self._codes(tensor))
        if node.quantizer is None:
            raise Unsupported("a quantizer without a layer")
        table = node.quantizer.table()
        q_min, q_max = (x.astype(np.float64) for x in code_limits(table))
        power = np.where(table.mask, 1.0, 2.0**table.extra_bits)
        total = table.bits + table.extra_bits
        step = node.arrays["step"]
        out = Tensor(
            value.shape,
            Type.CODES,
            step / power,
            -quantizers.code_limits(total, table.signed)[0],
            2**total - 1,
            q_min * step,
            q_max * step,
            _packing(node.quantizer, table),
        )
        index = self._add_tensor(out)
        self._emit(
            value, node.arrays["scale"], (q_min, q_max), index, table.name, power
        )
        self.program.quantized[table.name] = index
        return Codes(index)

    # Operations that only move codes.

    def _move(self, code: OpCode, node: Node, tensor: Tensor, **fields: Any) -> Codes:
        index = self._add_tensor(tensor)
        fields.setdefault("operands", [self._codes(node.inputs[0])])
        self.program.operations.append(
            Operation(
                code, output=index, window=node.window, name=self._name(node.output),
                **fields,
            )
        )  # fmt: skip
        return Codes(index)

    def _same(self, node: Node) -> Tensor:
        source = self.program.tensors[self._codes(node.inputs[0])]
        return dataclasses.replace(source, shape=self._reader.shape(node.output))

    def _maximum(self, node: Node) -> Codes:
        source = self._values[node.inputs[0]]
        if isinstance(source, Codes) and self._ignores_zeros(node, source):
            top, _, left, _ = source.pads
            w = node.window
            window = dataclasses.replace(w, top=w.top + top, left=w.left + left)
            check_window(node.kind, window)
            node = dataclasses.replace(node, window=window)
            inner = self.program.tensors[source.tensor]
            out = dataclasses.replace(inner, shape=self._reader.shape(node.output))
            return self._move(OpCode.MAX_POOL, node, out, operands=[source.tensor])
        return self._move(OpCode.MAX_POOL, node, self._same(node))

    def _ignores_zeros(self, node: Node, source: Codes) -> bool:
        """Whether zeros around a tensor cannot be the only maximum of a window."""
        inner = self.program.tensors[source.tensor]
        if inner.type != Type.CODES or inner.zero:
            return False
        w, out = node.window, self._reader.shape(node.output)
        starts = (w.top + source.pads[0], w.left + source.pads[2])
        taps = (w.height, w.width)
        return all(
            starts[i] < taps[i]
            and (out[i] - 1) * w.stride[i] - starts[i] < inner.shape[i]
            for i in range(2)
        )

    def _nearest(self, node: Node) -> Codes:
        return self._move(OpCode.NEAREST, node, self._same(node))

    def _bilinear(self, node: Node) -> Codes:
        tensor = self._same(node)
        if tensor.type != Type.CODES or tensor.zero:
            raise Unsupported("it interpolates signed codes")
        parts = 4 * node.window.stride[0] * node.window.stride[1]
        shift = 0
        while (tensor.peak * parts + (1 << shift >> 1)) >> shift > _BILINEAR_PEAK:
            shift += 1
        tensor.peak = (tensor.peak * parts + (1 << shift >> 1)) >> shift
        tensor.step = tensor.step * 2.0**shift / parts
        tensor.packing = None
        return self._move(OpCode.BILINEAR, node, tensor, shift=shift)

    def _pad(self, node: Node) -> Codes:
        source = self._values[node.inputs[0]]
        pads = source.pads if isinstance(source, Codes) else (0, 0, 0, 0)
        tensor = (
            source.tensor if isinstance(source, Codes) else self._codes(node.inputs[0])
        )
        return Codes(
            tensor, tuple(a + b for a, b in zip(pads, node.widths, strict=True))
        )

    def _widen(self, node: Node) -> Codes:
        shape = self._reader.shape(node.output)
        source = self.program.tensors[self._codes(node.inputs[0])]
        (front,) = node.widths

        def grown(values: Any, dtype: Any) -> NDArray:
            out = np.zeros(shape[2], dtype)
            out[front : front + source.shape[2]] = values
            return out

        tensor = dataclasses.replace(
            source, shape=shape, step=grown(source.step, np.float64)
        )
        if source.low is not None and source.high is not None:
            tensor.low = grown(source.low, np.float64)
            tensor.high = grown(source.high, np.float64)
        if source.packing is not None:
            mask = grown(source.packing.mask, np.bool_)
            tensor.packing = dataclasses.replace(source.packing, mask=mask, layer="")
        return self._move(OpCode.CONCAT, node, tensor, places=[front])

    def _concat(self, node: Node) -> Codes:
        parts = [self._codes(tensor) for tensor in node.inputs]
        tensors = [self.program.tensors[part] for part in parts]
        kinds = {(t.type, t.zero, t.slot) for t in tensors}
        if len(kinds) > 1:
            parts = [
                part
                if t.type == Type.WIDE and t.slot == NONE
                else self._keep(self._scaled(part), source, wide=True)
                for part, t, source in zip(parts, tensors, node.inputs, strict=True)
            ]
            tensors = [self.program.tensors[part] for part in parts]
        first = tensors[0]
        packings = [t.packing for t in tensors if t.packing is not None]
        alike = {(p.bits, p.extra_bits, p.signed) for p in packings}
        packing = None
        if len(packings) == len(tensors) and len(alike) == 1:
            mask = np.concatenate([p.mask for p in packings])
            packing = dataclasses.replace(packings[0], mask=mask, layer="")
        known = all(t.low is not None for t in tensors)
        tensor = Tensor(
            self._reader.shape(node.output),
            first.type,
            np.concatenate([t.step for t in tensors]),
            first.zero,
            max(t.peak for t in tensors),
            np.concatenate([t.low for t in tensors]) if known else None,
            np.concatenate([t.high for t in tensors]) if known else None,
            packing,
            first.slot,
        )
        ends = np.cumsum([t.shape[2] for t in tensors])
        places = [0, *map(int, ends[:-1])]
        return self._move(OpCode.CONCAT, node, tensor, operands=parts, places=places)


def lower(
    reader: Reader,
    region: Region,
    ranges: Mapping[int, tuple[Floats, Floats]],
    trusted: bool,
    byte_outputs: Mapping[int, ByteCodes],
) -> Program:
    """Lowers a region.

    Args:
        reader: `Reader` of the model.
        region: `Region`.
        ranges: From tensors of the model to their smallest and largest value a channel,
            for what no quantizer rounds.
        trusted: Boolean. Whether the ranges come from real data: then such tensors get
            codes of 7 bits, else of 16.
        byte_outputs: From tensors of the model that leave it as bytes to their
            `ByteCodes`.

    Returns:
        A `Program`.

    Raises:
        Unsupported: If the region cannot be computed with integers, and why.
    """
    lowering = _Lowering(reader, region, ranges, trusted)
    lowering.program.byte_outputs = {
        number: byte_outputs[tensor]
        for number, tensor in enumerate(region.outputs)
        if tensor in byte_outputs
    }
    return lowering.run()
