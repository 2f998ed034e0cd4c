"""Moves the scalings of quantizers into the weights around them.

A built-in export multiplies by 1 / scale, clips, rounds and multiplies by scale: four
passes over all activations. But a convolution gives scaled channels if its kernel's
outputs are scaled, and reads them if its inputs are: then a quantizer only clips and
rounds, and what runs to the next layer are its codes. A scaling that meets something
else first, a sum for instance, goes as far as it can.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from dqa_keras.export.litert import flatbuffer, verification
from dqa_keras.export.litert.flatbuffer import KERNEL_OPS
from dqa_keras.export.litert.model_reader import ModelReader, Unsupported

_Activation = schema.ActivationFunctionType

# Ops that do to scaled channels what they do to others.
_PASSING = {
    "AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D", "MEAN", "PAD",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
}  # fmt: skip


class _Factor(NamedTuple):
    """What a product multiplies with: its constant, and the same as one per channel."""

    constant: NDArray[np.float32]
    channels: NDArray[np.float64]


class _ScaleFolder:
    """Rewires the ops of a model, then writes the weights that follow from it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._reader = ModelReader(model, [])
        self._graph = self._reader.graph
        self._tensors = model.subgraphs[0].tensors
        self._readers: dict[int, list[Any]] = {}
        for op in self._graph.ops:
            for tensor in map(int, op.inputs):
                self._readers.setdefault(tensor, []).append(op)
        # What the channels of kernels are multiplied with: inputs, outputs.
        self._gains: dict[int, tuple[Any, NDArray, NDArray]] = {}

    def run(self) -> None:
        """Moves what can be moved."""
        rounds = [
            self._graph.producer(where.codes)
            for where in verification.roundings(self._graph)
        ]
        for op in rounds:
            self._fold_forward(op)
        for op in rounds:
            self._fold_back(op)
        for op, inputs, outputs in self._gains.values():
            self._write(op, inputs, outputs)
        flatbuffer.drop_unused(self._model)

    # The scaling after a rounding goes to the layers that read it.

    def _fold_forward(self, rounding: Any) -> None:
        codes = int(rounding.outputs[0])
        readers = self._readers.get(codes, [])
        if len(readers) != 1 or self._is_output(codes):
            return
        (scaling,) = readers
        factor, scaled = self._factor(scaling), int(scaling.outputs[0])
        if (
            factor is None
            or _activation(scaling) != _Activation.NONE
            or self._is_output(scaled)
        ):
            return
        others = []
        for op in self._readers.get(scaled, []):
            if self._can_read_codes(op, scaled):
                op.inputs = [codes if int(t) == scaled else int(t) for t in op.inputs]
                self._readers[codes].append(op)
                self._fold_into_reader(op, codes, factor.channels)
            else:
                others.append(op)
        self._readers[scaled] = others
        ops = self._graph.ops
        if len(self._readers[codes]) > 1:
            # Codes wait for what still needs them scaled, not both.
            ops.remove(scaling)
            if others:
                ops.insert(min(map(ops.index, others)), scaling)
            else:
                self._readers[codes].remove(scaling)

    def _can_read_codes(self, op: Any, tensor: int) -> bool:
        """Whether an op can read codes instead of values."""
        kind = self._graph.kind(op)
        if [int(t) for t in op.inputs].count(tensor) != 1:
            return False
        if kind in KERNEL_OPS:
            data, _ = KERNEL_OPS[kind]
            return int(op.inputs[data]) == tensor and (
                self._own_kernel(op, -1, self._channels(tensor))
            )
        if kind not in _PASSING:  # a split, which has several outputs, is none of these
            return False
        (output,) = map(int, op.outputs)
        following = self._readers.get(output, [])
        return (
            not self._is_output(output)
            and _activation(op) == _Activation.NONE
            and self._keeps_channels(op, kind, tensor)
            and bool(following)
            and all(self._can_read_codes(op, output) for op in following)
        )

    def _keeps_channels(self, op: Any, kind: str, tensor: int) -> bool:
        """Whether channels come out of an op as channels."""
        last = len(self._tensors[tensor].shape) - 1
        if kind == "CONCATENATION":
            return int(op.builtinOptions.axis) % (last + 1) == last
        if kind == "MEAN":
            axes = self._reader.constant(op.inputs[1]).reshape(-1) % (last + 1)
            return last not in axes
        return self._channels(int(op.outputs[0])) == self._channels(tensor)

    def _fold_into_reader(self, op: Any, tensor: int, gain: NDArray) -> None:
        kind = self._graph.kind(op)
        if kind in KERNEL_OPS:
            _, inputs, _ = self._gain(op)
            inputs *= gain
            return
        (output,) = map(int, op.outputs)
        if kind == "CONCATENATION":
            parts = [
                gain if part == tensor else np.ones(self._channels(part))
                for part in map(int, op.inputs)
            ]
            gain = np.concatenate(parts)
        for following in self._readers[output]:
            self._fold_into_reader(following, output, gain)

    # The scaling before a rounding goes to the layer that makes the values.

    def _fold_back(self, rounding: Any) -> None:
        bounds, op = [], rounding
        while self._graph.kind(op) in ("ROUND", "MINIMUM", "MAXIMUM"):
            bounds.append(op)
            op = self._graph.producer(self._graph.variable_input(op))
        factor = None if op is None else self._factor(op)
        if factor is None or not np.all(factor.constant > 0):
            return
        source, scaled = self._graph.variable_input(op), int(op.outputs[0])
        fused = _activation(op)
        if (
            fused not in (_Activation.NONE, _Activation.RELU)
            or self._is_output(scaled)
            or len(self._readers[scaled]) != 1
        ):
            return
        limit = bounds[-1] if self._graph.kind(bounds[-1]) == "MINIMUM" else None
        if not self._can_be_scaled(source, self._channels(scaled), limit is not None):
            return
        producer = self._graph.producer(source)
        if _activation(producer) == _Activation.RELU6:
            self._keep_bound(source, limit, factor)
        self._scale(source, factor)
        if fused == _Activation.RELU or _activation(producer) == _Activation.RELU6:
            self._rectify(producer)
        self._graph.ops.remove(op)
        first = bounds[-1]
        first.inputs = [source if int(t) == scaled else int(t) for t in first.inputs]

    def _can_be_scaled(self, tensor: int, channels: int, bounded: bool = False) -> bool:
        """Whether whatever makes a tensor can make it scaled.

        Args:
            tensor: Integer.
            channels: Integer.
            bounded: Boolean. Whether the tensor is clipped next, so that another upper
                bound can go there. Defaults to `False`.
        """
        op = self._graph.producer(tensor)
        kind = self._graph.kind(op)
        if (
            len(self._readers.get(tensor, [])) != 1
            or self._is_output(tensor)
            or self._channels(tensor) != channels
        ):
            return False
        if kind == "MUL":
            return self._factor(op) is not None and (
                _activation(op) == _Activation.NONE
            )
        if kind == "RELU":
            return self._can_be_scaled(int(op.inputs[0]), channels)
        if kind == "ADD":
            shapes = [tuple(self._tensors[t].shape) for t in (*op.inputs, tensor)]
            return (
                _activation(op) in (_Activation.NONE, _Activation.RELU)
                and len(set(shapes)) == 1
                and all(self._can_be_scaled(int(t), channels) for t in op.inputs)
            )
        if kind not in KERNEL_OPS:
            return False
        allowed = [_Activation.NONE, _Activation.RELU]
        if bounded:
            allowed.append(_Activation.RELU6)
        _, axis = KERNEL_OPS[kind]
        place = self._bias_place(op)
        return (
            _activation(op) in allowed
            and self._own_kernel(op, axis, channels)
            and (place is None or self._graph.is_constant(op.inputs[place]))
        )

    def _scale(self, tensor: int, factor: _Factor) -> None:
        op = self._graph.producer(tensor)
        kind = self._graph.kind(op)
        if kind in ("ADD", "RELU"):
            for part in map(int, op.inputs):
                self._scale(part, factor)
        elif kind == "MUL":
            place = self._constant_place(op)
            both = self._reader.constant(op.inputs[place]) * factor.constant
            self._replace(op, place, both)
        else:
            _, _, outputs = self._gain(op)
            outputs *= factor.channels

    def _rectify(self, op: Any) -> None:
        if self._graph.kind(op) != "RELU":
            op.builtinOptions.fusedActivationFunction = _Activation.RELU

    def _keep_bound(self, tensor: int, limit: Any, factor: _Factor) -> None:
        """ReLU6's bound goes to the op that clips codes, and into the tensor's range.

        The range is for who runs the file to see what was in front of a quantizer.
        """
        place = self._constant_place(limit)
        both = np.minimum(
            self._reader.constant(limit.inputs[place]), 6 * factor.constant
        )
        self._replace(limit, place, both)
        known = schema.QuantizationParametersT()
        known.max = (6 * factor.channels).astype(np.float32)
        self._tensors[tensor].quantization = known

    # What ops and tensors are like.

    def _is_output(self, tensor: int) -> bool:
        return tensor in self._reader.outputs

    def _channels(self, tensor: int) -> int:
        shape = self._tensors[tensor].shape
        return 0 if shape is None or len(shape) < 2 else int(shape[-1])

    def _constant_place(self, op: Any) -> int:
        return int(self._graph.is_constant(op.inputs[1]))

    def _factor(self, op: Any) -> _Factor | None:
        """What a product multiplies with, if it is a constant alike for all pixels."""
        constant = [self._graph.is_constant(tensor) for tensor in op.inputs]
        if self._graph.kind(op) != "MUL" or constant.count(True) != 1:
            return None
        tensor = int(op.inputs[self._constant_place(op)])
        try:
            channels = self._reader.channels(tensor, self._channels(int(op.outputs[0])))
        except Unsupported:
            return None
        return _Factor(self._reader.constant(tensor), channels)

    def _own_kernel(self, op: Any, axis: int, channels: int) -> bool:
        """Whether a kernel is this op's alone and has as many channels."""
        tensor = int(op.inputs[1])
        try:
            kernel = self._reader.constant(tensor)
        except Unsupported:
            return False
        return kernel.shape[axis] == channels and len(self._readers[tensor]) == 1

    def _bias_place(self, op: Any) -> int | None:
        place = flatbuffer.bias_place(self._graph.kind(op))
        return place if len(op.inputs) > place and op.inputs[place] >= 0 else None

    def _gain(self, op: Any) -> tuple[Any, NDArray, NDArray]:
        _, axis = KERNEL_OPS[self._graph.kind(op)]
        shape = self._reader.constant(op.inputs[1]).shape
        return self._gains.setdefault(
            id(op), (op, np.ones(shape[-1]), np.ones(shape[axis]))
        )

    def _write(self, op: Any, inputs: NDArray, outputs: NDArray) -> None:
        """Gives an op a kernel and a bias with other channels."""
        _, axis = KERNEL_OPS[self._graph.kind(op)]
        kernel = self._reader.constant(op.inputs[1]) * inputs
        across = [1] * kernel.ndim
        across[axis] = -1
        place = self._bias_place(op)
        if place is not None:
            bias = self._reader.constant(op.inputs[place])
            self._replace(op, place, bias * outputs)
        self._replace(op, 1, kernel * outputs.reshape(across))

    def _replace(self, op: Any, place: int, values: NDArray) -> None:
        """Gives an op another constant."""
        tensor = int(op.inputs[place])
        if len(self._readers[tensor]) > 1:
            self._tensors.append(copy.copy(self._tensors[tensor]))
            tensor = len(self._tensors) - 1
            op.inputs = list(map(int, op.inputs))
            op.inputs[place] = tensor
            self._readers[tensor] = [op]
        data = np.ascontiguousarray(values, "<f4")
        buffer = schema.BufferT()
        buffer.data = data.reshape(-1).view(np.uint8)
        self._tensors[tensor].shape = np.array(data.shape, np.int32)
        self._tensors[tensor].buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)


def _activation(op: Any) -> int:
    options = op.builtinOptions
    return getattr(options, "fusedActivationFunction", _Activation.NONE)


def fold_scales(model: Any) -> None:
    """Moves the scalings of quantizers into kernels, in place.

    Args:
        model: `ModelT` with float32 weights, as the converter wrote it.
    """
    _ScaleFolder(model).run()
