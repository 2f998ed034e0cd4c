"""What happens in a stage: which op computes which rows, and what is held for it."""

import dataclasses
from collections.abc import Iterator

from dqa_keras.export.plan.arena import ALWAYS
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import Operation
from dqa_keras.export.plan.time_model import CALL, WEIGHT_BYTE


def rows_seen(
    code: OpCode, window: Window, addend: bool, height: int, first: int, end: int
) -> tuple[int, int]:
    """The rows of an input that some rows of an output see.

    Args:
        code: `OpCode`.
        window: `Window`.
        addend: Boolean. Whether the input is added to the sum.
        height: Integer. Rows of the input.
        first: Integer. First row of the output.
        end: Integer. The row after the last one.

    Returns:
        The first row of the input, and the one after the last. Where taps read zeros
        around the input, these may lie outside of it.
    """
    if not addend:
        first, end = code.rule.rows(window, first, end)
        if code.rule.frame:
            return first, end
    first = min(max(first, 0), height - 1)
    return first, max(min(end, height), first + 1)


@dataclasses.dataclass
class Move:
    """One op of a stage: an operation, or a tensor's way in or out of memory."""

    code: OpCode
    reads: list[tuple[int, bool]]  # tensor, whether an addend
    writes: int  # tensor; -1 - number for an output
    window: Window
    operation: Operation | None = None
    rows: int = 1  # that it computes at once, if they exist

    @property
    def is_sink(self) -> bool:
        """Whether it takes rows out of the stage."""
        return self.code == OpCode.STORE or self.writes < 0


@dataclasses.dataclass
class LineBuffer:
    """What a stage keeps of a tensor."""

    rows: int = 0
    left: int = 0
    right: int = 0
    # When rows of it are held, a bit for each call of the stage. All bits if more than
    # rows lie in it: zeros around them.
    held: int = ALWAYS
    group: int = 0  # channels that are computed at once; see `Buffer`
    packed: bool = False  # whether its groups are packed


@dataclasses.dataclass
class Walk:
    """What happens in a stage of operations first to end, row by row."""

    first: int
    end: int
    moves: list[Move]
    strips: int
    line_buffers: dict[int, LineBuffer]
    time: float  # as `time_model` counts it
    calls: int
    # Whenever rows were stored: rows of the tensors that die in the stage that were
    # loaded by then, and rows of those that are born in it.
    stored: list[tuple[list[int], list[int]]]
    dying: list[int]
    born: list[int]
    # Grouped tensors whose kept rows may be packed, and the time that it takes: those
    # first where it saves most for its time.
    packable: list[tuple[int, float]]

    def packed(self) -> Iterator["Walk"]:
        """The same with the kept rows of more and more tensors packed."""
        walk = self
        for tensor, time in self.packable:
            lines = dataclasses.replace(walk.line_buffers[tensor], packed=True)
            walk = dataclasses.replace(
                walk,
                line_buffers={**walk.line_buffers, tensor: lines},
                time=walk.time + time,
            )
            yield walk


@dataclasses.dataclass
class Cut:
    """A stage, and what it takes."""

    walk: Walk
    memory: int  # bytes of the arena while it runs, if placing them wastes none
    # For each pair of a tensor that dies and one that is born: how far the new one
    # must begin in front of the old one.
    leads: dict[tuple[int, int], int]


def call_time(move: Move) -> float:
    """The time of one call, besides that of its rows."""
    arrays = move.operation.arrays if move.operation else {}
    if "weights" not in arrays or move.code == OpCode.QUANTIZE_INPUT:
        return CALL
    return CALL + WEIGHT_BYTE * arrays["weights"].nbytes


def rows_first_kept(window: Window, first: int, rows: int, height: int) -> int:
    """Rows of a grouped input that are kept before its reader computes rows.

    Args:
        window: `Window` of the reader.
        first: Integer. The first row that its first row sees.
        rows: Integer. Rows of the input that are kept.
        height: Integer. Rows of the input.

    Returns:
        Integer: one row less than the stride below what the first row sees.
    """
    reach = (window.height - 1) * window.dilation[0] + 1
    before = reach - window.top - window.stride[0]
    return min(max(min(before, max(first, 0) + rows), 0), height)


def rows_kept(firsts: list[int], ends: list[int], height: int) -> int:
    """Rows, at least 1, that a window sees and that were computed for one before."""
    pairs = zip(firsts, ends, strict=False)
    return max(1, *(min(end, height) - max(first, 0) for first, end in pairs))


class Step:
    """A move while its stage is walked through."""

    def __init__(
        self, move: Move, height: int, row_time: float, call_time: float
    ) -> None:
        self.move = move
        self.height = height
        self.row_time = row_time
        self.call_time = call_time
        self.done = 0  # rows that exist, or that stand for zeros behind the last one
        self.rows = 0  # that must be kept
        self.written: list[int] = []  # the call that computed each row
        self.held = 0
        # An input whose channels are computed in groups: the step that computes rows
        # which are only kept, how many must be at first, and how many are later.
        self.grouped: Step | None = None
        self.first_kept = self.rows_kept = 0
        self.copied = 0  # codes that are kept, or loaded again, for a row
        # What it reads: the step that makes it; by its own first row, the first row
        # that it sees; by the end of its own rows, the end of those.
        self.reads: list[tuple[Step, list[int], list[int]]] = []
