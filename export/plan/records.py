"""The program of one `DQA` op: what the runtime does, in which order, and where.

A plan is data. The exporter writes it, `export/native/runtime` executes it, and
`dqa_keras.export.plan.reference` says in NumPy what must come out. `encoding` turns a
plan into bytes and back.
"""

import dataclasses
import enum

from dqa_keras.codec.sizes import StorageClass
from dqa_keras.export.plan.ops import OpCode, Window

# No offset: the op has no such array, the buffer no such table.
NONE = 0xFFFFFFFF


class Kind(enum.IntEnum):
    """Where a buffer lives."""

    LINE_BUFFER = 0  # the last rows of a tensor, unpacked
    STORED = 1  # a whole tensor, packed
    INPUT = 2  # an input of the op, float32 or bytes
    OUTPUT = 3  # an output of the op, float32 or bytes


class Type(enum.IntEnum):
    """What a buffer's values are."""

    CODES = 0  # uint8, `zero` stands for 0
    WIDE = 1  # int16
    FLOAT = 2  # float32


@dataclasses.dataclass
class Buffer:
    """Memory for rows of `width` pixels of `channels` values.

    Args:
        kind: `Kind`.
        type: `Type`.
        height: Integer. Rows of the whole tensor.
        width: Integer. Pixels of a row.
        channels: Integer. Values of a pixel.
        zero: Integer. The code that stands for 0 (`CODES` only). Defaults to `0`.
        peak: Integer. Largest code (`CODES`) or magnitude of one (`WIDE`).
        rows: Integer. Rows a line buffer holds. Those above and below the tensor that
            taps read are rows of zeros, which take the place of rows that are read no
            more; or all of one row, if there are more rows than the tensor has.
            Defaults to `0`.
        left: Integer. Pixels of zeros in front of each row of a line buffer.
            Defaults to `0`.
        right: Integer. Pixels of zeros behind. Defaults to `0`.
        offset: Integer. Where the buffer starts in the arena. Defaults to `0`.
        size: Integer. Bytes in the arena. Defaults to `0`.
        table: Integer. How a stored buffer is packed, or `NONE` for plain bytes.
        slot: Integer. The input whose magnitude scales the values, or `NONE`.
        group: Integer. If not `0`: a depthwise convolution has so many channels at once
            computed for its window, by the convolution in front of it. The line buffer
            only keeps its `rows` for the next window, without columns of zeros. A
            multiple of 32.
    """

    kind: Kind
    type: Type
    height: int
    width: int
    channels: int
    zero: int = 0
    peak: int = 0
    rows: int = 0
    left: int = 0
    right: int = 0
    offset: int = 0
    size: int = 0
    table: int = NONE
    slot: int = NONE
    group: int = 0

    @property
    def pixel_bytes(self) -> int:
        """Bytes from a pixel of a line buffer to the next: whole groups of four."""
        return -(-self.channels // 4) * 4 * (2 if self.type == Type.WIDE else 1)

    @property
    def row_bytes(self) -> int:
        """Bytes from a row of a line buffer to the next."""
        return (self.left + self.width + self.right) * self.pixel_bytes


@dataclasses.dataclass
class Table:
    """How stored codes are packed: as in `DQA_RESIDUAL`, without the codewords.

    Args:
        bits: Integer. Bits n of a base code.
        extra_bits: Integer. Bits m of a residual.
        signed: Integer. 0 if codes are unsigned, 1 if they are signed, else a zero
            point plus 1, as `LayerTable.sign`.
        channels: Integer.
        mask: Integer. Offset of the mask in the constants: a byte a channel. Unless
            `storage` is raw a layer's name follows, a byte of length in front: the
            codewords are its, from the metadata `DQA_RESIDUAL`.
        storage: `StorageClass`. Defaults to `"raw"`.
    """

    bits: int
    extra_bits: int
    signed: int
    channels: int
    mask: int
    storage: StorageClass = "raw"


@dataclasses.dataclass
class Link:
    """A buffer that an op reads.

    Args:
        buffer: Integer. Its number.
        value: Integer. For an operand of CONCAT the first channel it fills; for an
            addend the offset of its scales in the constants; otherwise 0.
        addend: Boolean. Whether it is added after the sum. Defaults to `False`.
    """

    buffer: int
    value: int = 0
    addend: bool = False


@dataclasses.dataclass
class Op:
    """One instruction.

    Sums become values in float32, one operation after the other, with arrays of one
    number for each output channel:

        v = float(sum) * multiplier          AVERAGE: float(sum) * (1 / taps) first
        v = v + bias
        v = v + float(code - zero) * scale   for each addend
        v = min(max(v, low), high)
        code = rint(v) * power + zero        half to even; floats are written unrounded

    Args:
        code: `OpCode`.
        output: Integer. The buffer it writes.
        links: List of `Link`. The buffers it reads, operands first.
        window: `Window`.
        weights: Integer. Offset of the weights. QUANTIZE_INPUT: of factors to the
            input.
        multiplier: Integer. Offset of the array, like the next four, or `NONE`.
            QUANTIZE_INPUT: of summands to the scaled input.
        bias: Integer.
        low: Integer.
        high: Integer.
        power: Integer.
        scratch: Integer. Where in the arena an op with a `slot` keeps its scales.
        shift: Integer. BILINEAR: bits dropped from the weighted sum.
            QUANTIZE_INPUT: largest code.
        rows: Integer. Rows that it computes at once, if they exist. Defaults to `1`.
        name: String, for people.
    """

    code: OpCode
    output: int
    links: list[Link]
    window: Window = dataclasses.field(default_factory=Window)
    weights: int = NONE
    multiplier: int = NONE
    bias: int = NONE
    low: int = NONE
    high: int = NONE
    power: int = NONE
    scratch: int = NONE
    shift: int = 0
    rows: int = 1
    name: str = ""


@dataclasses.dataclass
class Stage:
    """Ops that run together, strip by strip.

    Args:
        first: Integer. Number of the first op.
        count: Integer. Ops.
        steps: Integer. Strips.
    """

    first: int
    count: int
    steps: int


@dataclasses.dataclass
class Plan:
    """Everything that a `DQA` op does.

    Args:
        buffers: List of `Buffer`. Inputs and outputs in the op's order.
        tables: List of `Table`.
        ops: List of `Op`.
        stages: List of `Stage`, which cover the ops in order.
        arena: Integer. Bytes of memory it needs besides inputs and outputs.
        constants: Integer. Bytes of weights and arrays.
    """

    buffers: list[Buffer]
    tables: list[Table]
    ops: list[Op]
    stages: list[Stage]
    arena: int
    constants: int
