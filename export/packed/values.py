"""Values that are not rounded yet, and how they become codes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.litert.model_reader import ModelReader, Unsupported
from dqa_keras.export.packed.bounds import bounds_of
from dqa_keras.export.packed.gathering import gathered, groups, some_channels
from dqa_keras.export.packed.partition import Region
from dqa_keras.export.packed.value import Codes, Input, Sum
from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import (
    LINEAR_BITS,
    Floats,
    Operation,
    Packing,
    Program,
    Tensor,
    conv_layout,
    depthwise_layout,
    padded,
)
from dqa_keras.export.plan.records import NONE, Type

_WEIGHT = 127
_WIDE = 32767

# How far beyond what random samples show a range is trusted to reach.
_MARGIN = 8.0

# The same for real samples, in front of a function that codes must resolve.
_HEADROOM = 2.0

_PASSING = {
    "max_pool", "nearest", "concat", "widen", "pad", "same", "gather", "depth_to_space",
    "space_to_depth",
}  # fmt: skip


class Emitter:
    """Emits the operations of one region.

    Args:
        reader: `ModelReader` of the model.
        region: `Region`.
        ranges: From tensors of the model to their smallest and largest value a channel.
        trusted: Boolean. Whether the ranges come from real data.
    """

    def __init__(
        self,
        reader: ModelReader,
        region: Region,
        ranges: Mapping[int, tuple[Floats, Floats]],
        trusted: bool,
    ) -> None:
        self.reader = reader
        self.region = region
        self._ranges = ranges
        self._trusted = trusted
        self.values: dict[int, Sum | Input | Codes] = {}
        self.uses: dict[int, int] = {}
        for node in region.nodes:
            for tensor in node.inputs:
                self.uses[tensor] = self.uses.get(tensor, 0) + 1
        self._largest = max(
            int(np.prod(reader.shape(node.output))) for node in region.nodes
        )
        self.program = Program(
            [],
            [],
            [reader.shape(tensor) for tensor in region.inputs],
            [reader.shape(tensor) for tensor in region.outputs],
            {},
        )

    def name(self, tensor: int) -> str:
        """A tensor's name in the model, short enough for a plan."""
        return self.reader.graph.name(tensor).split(";")[0][-80:]

    def alone(self, tensor: int) -> bool:
        """Whether only one node wants a value, so that it need not be kept."""
        return self.uses.get(tensor, 0) == 1 and tensor not in self.region.outputs

    # Values as codes.

    def add_tensor(self, tensor: Tensor) -> int:
        """Adds a tensor to the program; returns its number."""
        self.program.tensors.append(tensor)
        return len(self.program.tensors) - 1

    def codes(self, tensor: int) -> int:
        """The tensor of codes of a value, made if need be."""
        value = self.values[tensor]
        if isinstance(value, Codes) and not any(value.pads):
            return value.tensor
        if isinstance(value, Codes):
            shape = self.reader.shape(tensor)
            codes = gathered(self.program, value, Window(), shape, self.name(tensor))
        elif isinstance(value, Input):
            codes = self._read(value, tensor)
        else:
            codes = self.keep(value, tensor)
        self.values[tensor] = Codes(codes)
        return codes

    def fixed_codes(self, tensor: int) -> int:
        """The same, for what needs a step that does not depend on the input."""
        codes = self.codes(tensor)
        if self.program.tensors[codes].slot != NONE:
            raise Unsupported("it multiplies an input, whose range is not known")
        return codes

    def _read(self, value: Input, tensor: int) -> int:
        shape = self.program.inputs[value.number]
        limit = self._wide_limit(tensor)
        out = self.add_tensor(
            Tensor(shape, Type.WIDE, np.ones(shape[2]), 0, limit, slot=value.number)
        )
        arrays = {}
        if np.any(value.scale != 1) or np.any(value.offset != 0):
            arrays["weights"] = padded(value.scale)
        if np.any(value.offset != 0):
            arrays["multiplier"] = padded(value.offset)
        self.program.operations.append(
            Operation(
                OpCode.QUANTIZE_INPUT, [value.number], out, arrays=arrays, shift=limit,
                name=self.name(tensor),
            )
        )  # fmt: skip
        return out

    def _wide_limit(self, tensor: int) -> int:
        """The largest magnitude of wide codes whose sums of products fit 32 bits."""
        products, waiting, seen = 1, [tensor], {tensor}
        while waiting:
            at = waiting.pop()
            for node in self.region.nodes:
                if at not in node.inputs:
                    continue
                taps = node.window.height * node.window.width
                if node.kind in ("conv", "transpose", "grouped"):
                    products = max(products, node.arrays["kernel"][0].size)
                elif node.kind in ("depthwise", "average"):
                    products = max(products, taps)
                elif node.kind in _PASSING and node.output not in seen:
                    seen.add(node.output)
                    waiting.append(node.output)
        limit = min(_WIDE, (2**31 - 1) // (_WEIGHT * products))
        if limit < 255:
            raise Unsupported("sums of this many products do not fit 32 bits")
        return limit

    def keep(self, value: Sum, tensor: int) -> int:
        """Rounds a value that no quantizer rounds, to codes of 7 bits where it can.

        Args:
            value: `Sum`.
            tensor: Integer. The model's tensor that holds it.

        Returns:
            The number of the tensor of codes.
        """
        seen = self._ranges.get(tensor)
        height, width, channels = value.shape
        if not self._trusted or seen is None or height * width == 1:
            return self.keep_wide(value, tensor)
        magnitude = np.maximum(np.abs(seen[0]), np.abs(seen[1]))
        top = 2.0 ** (LINEAR_BITS - 1)
        step = np.maximum(magnitude, 1e-3 * magnitude.max() + 1e-30) / (top - 1)
        mask = np.zeros(channels, np.bool_)
        out = Tensor(
            value.shape, Type.CODES, step, int(top), int(2 * top - 1),
            -top * step, (top - 1) * step, Packing(LINEAR_BITS, 0, True, mask),
        )  # fmt: skip
        return self._keep_as(out, value, (-top, top - 1), tensor)

    def keep_wide(self, value: Sum, tensor: int, reach: float = 1e-30) -> int:
        """Rounds a value to wide codes that hold whatever it can be, and `reach` too.

        Arguments and result are those of `keep`.
        """
        bounds = bounds_of(value, self.program.tensors)
        if bounds is None:
            margin = 1.0 if self._trusted else _MARGIN
            low, high = self._seen(tensor)
            bounds = (margin * low, margin * high)
        return self._keep_wide(value, tensor, max(_magnitude(bounds), reach))

    def keep_expected(self, value: Sum, tensor: int) -> int:
        """Rounds a value to wide codes that hold what samples show, and twice that.

        What a value can be at most is often far more than what it is; codes that hold
        it all would leave few for what a function does near 0. Arguments and result are
        those of `keep`.
        """
        margin = _HEADROOM if self._trusted else _MARGIN
        magnitude = margin * _magnitude(self._seen(tensor))
        bounds = bounds_of(value, self.program.tensors)
        if bounds is not None:
            magnitude = min(magnitude, _magnitude(bounds))
        return self._keep_wide(value, tensor, max(magnitude, 1e-30))

    def _seen(self, tensor: int) -> tuple[Floats, Floats]:
        if tensor not in self._ranges:
            raise Unsupported("a value whose range is not known")
        return self._ranges[tensor]

    def _keep_wide(self, value: Sum, tensor: int, magnitude: float) -> int:
        limit = self._wide_limit(tensor)
        # One step for all channels: int8 weights behind it suffer otherwise.
        step = np.full(value.shape[2], magnitude / limit)
        out = Tensor(
            value.shape, Type.WIDE, step, 0, limit, -limit * step, limit * step
        )
        return self._keep_as(out, value, (-float(limit), float(limit)), tensor)

    def _keep_as(
        self, out: Tensor, value: Sum, limits: tuple[float, float], tensor: int
    ) -> int:
        index = self.add_tensor(out)
        self.emit(value, 1 / out.step, limits, index, self.name(tensor))
        return index

    def scaled(self, tensor: int) -> Sum:
        """A tensor's value, to compute with."""
        shape = self.program.tensors[tensor].shape
        zeros = np.zeros(shape[2])
        return Sum(
            shape, None, None, Window(), zeros, zeros, [(tensor, np.ones(shape[2]))]
        )

    # Operations.

    def emit(
        self,
        value: Sum,
        inverse_step: Floats,
        limits: tuple[Any, Any],
        output: int,
        name: str,
        power: Floats | None = None,
        is_output: bool = False,
    ) -> None:
        """Emits the operation that turns a value into codes, or an output.

        Args:
            value: `Sum`.
            inverse_step: Float array (C,). Codes for a value of 1.
            limits: Smallest and largest code.
            output: Integer. Tensor, or the number of an output if `is_output`.
            name: String, for people.
            power: Float array (C,), what codes are multiplied by. Defaults to ones.
            is_output: Boolean. Defaults to `False`.
        """
        if value.comes_in_parts:
            grouped = value.node is not None and value.node.kind == "grouped"
            emit = self._emit_groups if grouped else self._emit_transposed
            emit(value, inverse_step, limits, output, name, power)
            return
        low = np.maximum(value.low * inverse_step, limits[0])
        high = np.minimum(value.high * inverse_step, limits[1])
        arrays: dict[str, NDArray] = {
            "bias": padded(value.bias * inverse_step),
            "low": padded(low),
            "high": padded(high),
        }
        kept = (
            output in self.program.byte_outputs
            if is_output
            else self.program.tensors[output].type == Type.CODES
        )
        if kept:
            arrays["power"] = padded(np.ones_like(low) if power is None else power, 1)
        code, products, operands = OpCode.ADD, 0, []
        if value.operand is not None and value.node is not None:
            operands = [value.operand]
            step = self.program.tensors[value.operand].step
            if value.unary is not None:
                code, gain = value.unary.code, np.full_like(step, value.unary.scale)
                if value.unary.weights is not None:
                    arrays["weights"] = value.unary.weights
            elif value.factor is not None:
                operands.append(value.factor)
                code = OpCode.MULTIPLY
                gain = step * self.program.tensors[value.factor].step
            elif value.node.kind == "average":
                code, gain = OpCode.AVERAGE, step
            else:
                kernel = value.node.arrays["kernel"] * step
                depthwise = value.node.kind == "depthwise"
                code = OpCode.DEPTHWISE if depthwise else OpCode.CONV
                products = kernel.size * value.shape[0] * value.shape[1]
                if not depthwise and not is_output and self._in_tiles(value, operands):
                    code, kernel = OpCode.WINOGRAD, winograd.weights_of(kernel)
                axes = (0, 1) if depthwise else (1, 2, 3)
                largest = np.abs(kernel).max(axis=axes)
                gain = np.where(largest > 0, largest, 1.0) / _WEIGHT
                shape = (1, 1, -1) if depthwise else (-1, 1, 1, 1)
                weights = np.rint(kernel / gain.reshape(shape)).astype(np.int8)
                layout = depthwise_layout if depthwise else conv_layout
                arrays["weights"] = layout(weights)
            arrays["multiplier"] = padded(gain * value.gain * inverse_step)
        addends = [
            (t, padded(self.program.tensors[t].step * gain * inverse_step))
            for t, gain in value.addends
        ]
        self.program.operations.append(
            Operation(
                code, operands, output, value.window, [], addends, arrays,
                0 if value.unary is None else value.unary.shift, name, is_output,
                products,
            )
        )  # fmt: skip

    def _in_tiles(self, value: Sum, operands: list[int]) -> bool:
        """Whether a convolution is better computed in tiles."""
        tensors = self.program.tensors
        read = [*operands, *(tensor for tensor, _ in value.addends)]
        source = tensors[operands[0]]
        return (
            source.type == Type.CODES
            and all(tensors[tensor].slot == NONE for tensor in read)
            and winograd.fits(value.window, source.peak, source.shape[2])
            and winograd.pays(source.shape[2], value.shape, self._largest)
        )

    def _emit_transposed(
        self,
        value: Sum,
        inverse_step: Floats,
        limits: tuple[Any, Any],
        output: int,
        name: str,
        power: Floats | None,
    ) -> None:
        """Convolves at the input's size, then turns sets of channels into pixels."""
        if value.node is None:
            raise Unsupported("a transposed convolution without a kernel")
        factors = value.node.widths
        height, width, channels = value.shape

        def tiled(values: Any) -> Any:
            if values is None:
                return None
            return np.tile(np.broadcast_to(values, channels), int(np.prod(factors)))

        out = self.program.tensors[output]
        packing = out.packing
        if packing is not None:
            packing = dataclasses.replace(packing, mask=tiled(packing.mask), layer="")
        inner = dataclasses.replace(
            out,
            shape=(
                -(-height // factors[0]),
                -(-width // factors[1]),
                channels * int(np.prod(factors)),
            ),
            step=tiled(out.step),
            low=tiled(out.low),
            high=tiled(out.high),
            packing=packing,
        )
        index = self.add_tensor(inner)
        convolution = dataclasses.replace(
            value,
            shape=inner.shape,
            node=dataclasses.replace(value.node, kind="conv"),
            gain=tiled(value.gain),
            bias=tiled(value.bias),
        )
        bounds = (tiled(limits[0]), tiled(limits[1]))
        self.emit(convolution, tiled(inverse_step), bounds, index, name, tiled(power))
        self.program.operations.append(
            Operation(
                OpCode.DEPTH_TO_SPACE, [index], output,
                Window(stride=(factors[0], factors[1])), name=name,
            )
        )  # fmt: skip

    def _emit_groups(
        self,
        value: Sum,
        inverse_step: Floats,
        limits: tuple[Any, Any],
        output: int,
        name: str,
        power: Floats | None,
    ) -> None:
        """Convolves some groups at a time, each from its own channels."""
        if value.node is None or value.operand is None:
            raise Unsupported("a grouped convolution without a kernel")
        out, source = self.program.tensors[output], self.program.tensors[value.operand]
        parts, places = [], []
        for taken, made, kernel in groups(value.node.arrays["kernel"], source.shape[2]):
            size = (*source.shape[:2], len(taken))
            operand = Codes(value.operand)
            read = gathered(self.program, operand, Window(), size, name, taken)
            index = self.add_tensor(some_channels(out, made))
            part = dataclasses.replace(
                value,
                shape=(*value.shape[:2], len(made)),
                node=dataclasses.replace(
                    value.node, kind="conv", arrays={"kernel": kernel}
                ),
                operand=read,
                gain=value.gain[made],
                bias=value.bias[made],
            )
            low, high = (np.broadcast_to(x, value.shape[2])[made] for x in limits)
            powers = None if power is None else power[made]
            self.emit(part, inverse_step[made], (low, high), index, name, powers)
            parts.append(index)
            places.append(int(made[0]))
        if len(parts) > 255:
            raise Unsupported(f"groups in {len(parts)} parts; a plan joins at most 255")
        self.program.operations.append(
            Operation(OpCode.CONCAT, parts, output, places=places, name=name)
        )

    def emit_output(self, value: Sum, number: int, name: str) -> None:
        """Emits the operation that writes an output of the region."""
        inverse_step, limits = np.ones(value.shape[2]), (-np.inf, np.inf)
        codes = self.program.byte_outputs.get(number)
        if codes is not None:
            inverse_step = inverse_step / codes.step
            limits = (-codes.zero, 255 - codes.zero)
        self.emit(value, inverse_step, limits, number, name, is_output=True)


def _magnitude(bounds: tuple[Floats, Floats]) -> float:
    return float(np.max(np.abs(bounds)))
