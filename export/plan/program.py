"""A region as operations on tensors of codes, before anything has a place."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.plan.ops import BLOCK, GROUP, OpCode, Window
from dqa_keras.export.plan.records import NONE, Type

Floats = NDArray[np.float64]

# Bits of values that no quantizer rounds, where their range is known. Seven, so that a
# product of codes and weights and the next one's fit 16 bits together; the error is far
# below that of the quantizers around.
LINEAR_BITS = 7

_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass
class Packing:
    """How codes of a tensor may be stored: as a quantizer prescribes.

    Args:
        bits: Integer. Bits n of a base code.
        extra_bits: Integer. Bits m of a residual.
        signed: Integer. 0 if codes are unsigned, 1 if they are signed, else a zero
            point plus 1, as `LayerTable.sign`.
        mask: Boolean array (C,). The important channels.
        layer: String. The quantizer whose codewords fit, or empty: there are none.
        coded_bits: Pair of floats. Bits that a base code and a residual take on average
            in those codewords, as calibration saw it.
        linear: Boolean. Whether it is the output of a linear layer, or a sum with one,
            that would be kept in `LINEAR_BITS` if no quantizer rounded it.
    """

    bits: int
    extra_bits: int
    signed: int
    mask: NDArray[np.bool_]
    layer: str = ""
    coded_bits: tuple[float, float] = (0.0, 0.0)
    linear: bool = False


@dataclasses.dataclass
class Tensor:
    """Codes of an activation.

    Args:
        shape: Height, width, channels.
        type: `Type`.
        step: Float array (C,). What one code is worth; with a `slot`, in units of that
            input's.
        zero: Integer. The code of 0. Defaults to `0`.
        peak: Integer. Largest code, or magnitude of a wide one.
        low: Float array (C,), smallest value, or `None` if it depends on the input.
        high: Float array (C,), the same for the largest.
        packing: `Packing`, or `None`: stored as it is.
        slot: Integer. The input whose magnitude scales the codes, or `NONE`.
    """

    shape: tuple[int, int, int]
    type: Type
    step: Floats
    zero: int = 0
    peak: int = 0
    low: Floats | None = None
    high: Floats | None = None
    packing: Packing | None = None
    slot: int = NONE


@dataclasses.dataclass
class Operation:
    """An `Op` on tensors, before it is known where they live.

    Args:
        code: `OpCode`.
        operands: List of tensors. An input's number if the code is QUANTIZE_INPUT.
        output: Integer. Tensor, or the number of an output if `is_output`.
        window: `Window`.
        places: List of integers. First channel of each operand of CONCAT.
        addends: List of pairs: tensor, float32 array of scales.
        arrays: Dictionary of arrays: weights, multiplier, bias, low, high, power.
        shift: Integer, as in `Op`.
        name: String.
        is_output: Boolean. Whether it writes values for the outside.
        products: Integer. Multiplications, for statistics.
    """

    code: OpCode
    operands: list[int]
    output: int
    window: Window = dataclasses.field(default_factory=Window)
    places: list[int] = dataclasses.field(default_factory=list)
    addends: list[tuple[int, NDArray]] = dataclasses.field(default_factory=list)
    arrays: dict[str, NDArray] = dataclasses.field(default_factory=dict)
    shift: int = 0
    name: str = ""
    is_output: bool = False
    products: int = 0


@dataclasses.dataclass(frozen=True)
class ByteCodes:
    """How LiteRT keeps values in a byte: `step * (code - zero)`.

    Args:
        step: Float.
        zero: Integer in 0..255.
    """

    step: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> "ByteCodes":
        """The codes whose range holds `low`, `high` and 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        # LiteRT keeps scales in float32.
        step = float(np.float32((high - low) / 255 or 1.0))
        return cls(step, round(-low / step))


@dataclasses.dataclass
class Program:
    """A region as integer operations.

    Args:
        tensors: List of `Tensor`.
        operations: List of `Operation`, in an order in which they can run.
        inputs: List of shapes.
        outputs: List of shapes.
        bytes: Set of the inputs that are bytes instead of float32 values.
        byte_outputs: Dictionary from an output's number to the `ByteCodes` that it
            holds instead of float32 values.
        quantized: Dictionary from a quantizer layer's name to its tensor.
    """

    tensors: list[Tensor]
    operations: list[Operation]
    inputs: list[tuple[int, int, int]]
    outputs: list[tuple[int, int, int]]
    quantized: dict[str, int]
    bytes: set[int] = dataclasses.field(default_factory=set)
    byte_outputs: dict[int, ByteCodes] = dataclasses.field(default_factory=dict)


def padded(values: Floats, fill: float = 0.0) -> NDArray[np.float32]:
    """An array of whole blocks, in float32."""
    out = np.full(-(-values.size // BLOCK) * BLOCK, fill, np.float32)
    out[: values.size] = np.clip(values, -_LARGEST, _LARGEST)
    return out


def conv_layout(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights (O, Ky, Kx, I) as the kernels read them: blocks, taps, groups, O, I."""
    outputs, height, width, inputs = weights.shape
    blocks, groups = -(-outputs // BLOCK), -(-inputs // GROUP)
    full = np.zeros((blocks * BLOCK, height, width, groups * GROUP), np.int8)
    full[:outputs, :, :, :inputs] = weights
    split = full.reshape(blocks, BLOCK, height, width, groups, GROUP)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1, 5)).reshape(-1)


def depthwise_layout(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights (Ky, Kx, C) with channels in whole blocks."""
    channels = weights.shape[2]
    full = np.zeros((*weights.shape[:2], -(-channels // BLOCK) * BLOCK), np.int8)
    full[:, :, :channels] = weights
    return full.reshape(-1)
