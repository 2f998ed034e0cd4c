"""The ops of a plan: one row each, from which all that asks about ops takes its answer.

An op reads operands and writes one buffer. Some ops add further buffers to what they
compute, the addends. `reference.FUNCTIONS` says in NumPy what each op computes,
`FORMAT.md` lists them, and the C++ runtime has a table of the same rows: tests compare.

>>> OpCode.CONV.rule.operands
(1, 1)
>>> [op.name for op in OpCode if op.rule.output == Output.SAME_CODES][:3]
['LOAD', 'STORE', 'MAX_POOL']
"""

import dataclasses
import enum
from collections.abc import Callable

BLOCK = 16  # output channels computed together
GROUP = 4  # input channels multiplied together

# A piecewise linear function of wide codes has a value every KNOT_STEP codes, from
# -2^15 to 2^15.
KNOT_STEP = 128
KNOTS = 2**16 // KNOT_STEP + 1

# Buffers that an op adds to its sum.
ADDENDS = 2


@dataclasses.dataclass
class Window:
    """Which inputs an output sees: `y * stride - top + tap * dilation`, and so for x.

    Args:
        height: Integer. Taps, downwards. Defaults to `1`.
        width: Integer. Taps, sideways. Defaults to `1`.
        stride: Pair of integers, down and sideways. NEAREST, BILINEAR and
            DEPTH_TO_SPACE enlarge by it. Defaults to `(1, 1)`.
        dilation: Pair of integers. Defaults to `(1, 1)`.
        top: Integer. Rows of zeros above. Negative for GATHER: rows that it leaves out.
            Defaults to `0`.
        left: Integer. Columns of zeros on the left, or left out. Defaults to `0`.
    """

    height: int = 1
    width: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0


# Window rules: which rows of an operand rows `first` to `end` of the output need. The
# result may reach past the operand.


def _same_rows(window: Window, first: int, end: int) -> tuple[int, int]:
    return first, end


def _tap_rows(window: Window, first: int, end: int) -> tuple[int, int]:
    first = first * window.stride[0] - window.top
    last = (end - 1) * window.stride[0] - window.top
    return first, last + (window.height - 1) * window.dilation[0] + 1


def _enlarged_rows(window: Window, first: int, end: int) -> tuple[int, int]:
    return first // window.stride[0], (end - 1) // window.stride[0] + 1


def _neighbour_rows(window: Window, first: int, end: int) -> tuple[int, int]:
    s = window.stride[0]
    return (2 * first + 1 + s) // (2 * s) - 1, (2 * (end - 1) + 1 + s) // (2 * s) + 1


class Weights(enum.Enum):
    """How an op's weights lie in the constants; I and O count channels."""

    NONE = ""
    CONV = "int8 [O / 16][taps][I / 4][16][4]"
    DEPTHWISE = "int8 [taps][C padded to 16]"
    TILES = "int8 [O / 16][16][I / 4][16][4]"
    KNOTS = "int16 [513]"
    CHANNELS = "uint16 [O]"

    def size(self, window: Window, inputs: int, outputs: int) -> int:
        """Bytes of the weights of an op."""
        blocks, groups = -(-outputs // BLOCK), -(-inputs // GROUP)
        taps = window.height * window.width
        return {
            Weights.NONE: 0,
            Weights.CONV: blocks * taps * groups * BLOCK * GROUP,
            Weights.DEPTHWISE: taps * blocks * BLOCK,
            Weights.TILES: blocks * 16 * groups * BLOCK * GROUP,
            Weights.KNOTS: 2 * KNOTS,
            Weights.CHANNELS: 2 * outputs,
        }[self]


class Output(enum.Enum):
    """What bounds the values that an op writes."""

    SAME_CODES = enum.auto()  # they are codes of its operands
    OWN_CODES = enum.auto()  # the largest code is its own
    CLIPPED = enum.auto()  # a sum: scaled, clipped by its arrays `low` and `high`


@dataclasses.dataclass(frozen=True)
class OpRule:
    """What holds for an op.

    Args:
        operands: Pair of integers. How many buffers it reads, besides addends: at
            least, at most.
        computes: String. The op in a few words, as in `FORMAT.md`.
        output: `Output`. Only clipped sums take addends, up to `ADDENDS`.
        rows: Function of a `Window` and the first row and end of output rows. The rows
            of an operand that it needs.
        taps: Boolean. Whether the window may have more than one tap.
        frame: Boolean. Whether taps outside the operand read zeros that its line buffer
            holds.
        weights: `Weights`.
        tile: Integer. Side of the tiles of outputs that it computes at once: a stage
            asks it for so many rows, or all.
    """

    operands: tuple[int, int]
    computes: str
    output: Output = Output.SAME_CODES
    rows: Callable[[Window, int, int], tuple[int, int]] = _same_rows
    taps: bool = False
    frame: bool = False
    weights: Weights = Weights.NONE
    tile: int = 1


class OpCode(enum.IntEnum):
    """What an op computes: its number in a plan, and its `OpRule` as `rule`."""

    rule: OpRule

    def __new__(cls, number: int, rule: OpRule) -> "OpCode":
        """A member whose value is its number."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.rule = rule
        return member

    QUANTIZE_INPUT = (
        0,
        OpRule(
            (1, 1),
            "`rint(clip((x * weights + multiplier) / step))`, "
            "step = largest magnitude / shift",
            Output.OWN_CODES,
        ),
    )
    LOAD = 1, OpRule((1, 1), "rows from a stored buffer to a line buffer")
    STORE = 2, OpRule((1, 1), "rows from a line buffer to a stored buffer")
    CONV = 3, OpRule(
        (1, 1), "sums over taps and channels", Output.CLIPPED, _tap_rows,
        taps=True, frame=True, weights=Weights.CONV,
    )  # fmt: skip
    DEPTHWISE = 4, OpRule(
        (1, 1), "sums over taps", Output.CLIPPED, _tap_rows,
        taps=True, frame=True, weights=Weights.DEPTHWISE,
    )  # fmt: skip
    ADD = 5, OpRule((0, 0), "a sum of addends alone", Output.CLIPPED)
    AVERAGE = 6, OpRule(
        (1, 1), "sums over the taps inside the input, times 1 / taps",
        Output.CLIPPED, _tap_rows, taps=True,
    )  # fmt: skip
    MAX_POOL = 7, OpRule(
        (1, 1), "the largest code of the taps inside the input",
        rows=_tap_rows, taps=True,
    )  # fmt: skip
    NEAREST = 8, OpRule((1, 1), "each pixel repeated stride times", rows=_enlarged_rows)
    BILINEAR = 9, OpRule(
        (1, 1),
        "between pixel centres; weights in parts of 4 strides, sum shifted right, "
        "half up",
        Output.OWN_CODES, _neighbour_rows,
    )  # fmt: skip
    CONCAT = 10, OpRule((1, 255), "channels side by side, zero where no operand is")
    DEPTH_TO_SPACE = (
        11,
        OpRule(
            (1, 1),
            "pixel (y, x): set `(y mod s) s' + x mod s'` of the channels of pixel "
            "(y / s, x / s'), s and s' the stride",
            rows=_enlarged_rows,
        ),
    )
    WINOGRAD = 12, OpRule(
        (1, 1), "what CONV of 3x3 taps does, in tiles", Output.CLIPPED, _tap_rows,
        taps=True, frame=True, weights=Weights.TILES, tile=2,
    )  # fmt: skip
    HARD_SWISH = 13, OpRule(
        (1, 1),
        "`q clip(q + shift, 0, 2 shift)` of wide codes q; shift is the code of 3",
        Output.CLIPPED,
    )  # fmt: skip
    PIECEWISE_LINEAR = 14, OpRule(
        (1, 1),
        "`w[i] (128 - r) + w[i + 1] r` of wide codes q, with i and r the quotient and "
        "the rest of (q + 32768) / 128",
        Output.CLIPPED, weights=Weights.KNOTS,
    )  # fmt: skip
    MULTIPLY = 15, OpRule(
        (2, 2),
        "products of the operands' values, zeros taken off; the second may have a "
        "single pixel",
        Output.CLIPPED,
    )  # fmt: skip
    GATHER = 16, OpRule(
        (1, 1),
        "channel c: channel `weights[c]` of the pixel that its window of one tap sees; "
        "zeros around the input; rows above and columns on the left may be negative",
        rows=_tap_rows, frame=True, weights=Weights.CHANNELS,
    )  # fmt: skip

    @property
    def adds(self) -> bool:
        """Whether it takes addends."""
        return self.rule.output == Output.CLIPPED
