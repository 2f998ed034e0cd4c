"""Cuts a program into stages and finds what each needs.

Operations run in stages. Inside a stage rows flow from operation to operation through
line buffers, which hold only the last rows needed. Between stages tensors are stored
whole, in packed form. Of all ways to cut that take hardly more memory than the best
one, the one that moves fewest bytes is chosen.
"""

import dataclasses
from collections.abc import Iterator

from dqa_keras.export.plan.arena import align
from dqa_keras.export.plan.coded_size import row_bytes
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.program import Operation, Program
from dqa_keras.export.plan.records import Buffer, Kind

# Operations of one stage at most: more would only cost planning time.
_LONGEST = 14
# Pixels of a strip at least, so that weights are used more than once when loaded.
STRIP_PIXELS = 24
# Weights of a stage beyond this many bytes do not stay in a core's cache.
_CACHE = 256 * 1024

# Memory that may be spent, over the least possible, on moving fewer bytes.
_TOLERANCE = 1.02


def rows_read(
    code: OpCode, window: Window, addend: bool, height: int, first: int, end: int
) -> tuple[int, int]:
    """The rows of an input that some rows of an output need.

    Args:
        code: `OpCode`.
        window: `Window`.
        addend: Boolean. Whether the input is added to the sum.
        height: Integer. Rows of the input.
        first: Integer. First row of the output.
        end: Integer. The row after the last one.

    Returns:
        The first row of the input, and the one after the last.
    """
    if not addend:
        first, end = code.rule.rows(window, first, end)
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
    zero_row: bool = False


@dataclasses.dataclass
class Cut:
    """Operations first to end as one stage, and what that takes."""

    first: int
    end: int
    moves: list[Move]
    steps: int
    line_buffers: dict[int, LineBuffer]
    line_bytes: int
    memory: int
    traffic: int
    # For each pair of a tensor that dies and one that is born: how far the new one
    # must begin in front of the old one.
    leads: dict[tuple[int, int], int]


class Stages:
    """Finds the stages of a program.

    Args:
        program: `Program`.
        strip_pixels: Integer. Pixels of a strip at least: with fewer, line buffers are
            smaller and weights are loaded more often.
    """

    def __init__(self, program: Program, strip_pixels: int = STRIP_PIXELS) -> None:
        self._program = program
        self._strip_pixels = strip_pixels
        self._tensors = program.tensors
        self._operations = self._wanted(program.operations)
        self._producer: dict[int, int] = {}
        self._last: dict[int, int] = {}
        for index, operation in enumerate(self._operations):
            if not operation.is_output:
                self._producer[operation.output] = index
            for tensor in self._read_by(operation):
                self._last[tensor] = index

    def _wanted(self, operations: list[Operation]) -> list[Operation]:
        """The operations that an output depends on."""
        needed: set[int] = set()
        wanted = []
        for operation in reversed(operations):
            if operation.is_output or operation.output in needed:
                needed.update(self._read_by(operation))
                wanted.append(operation)
        return wanted[::-1]

    def _read_by(self, operation: Operation) -> list[int]:
        if operation.code == OpCode.QUANTIZE_INPUT:
            return []
        return [*operation.operands, *(tensor for tensor, _ in operation.addends)]

    def _height(self, writes: int) -> int:
        shapes = self._program.outputs
        return shapes[-1 - writes][0] if writes < 0 else self._tensors[writes].shape[0]

    def _width(self, writes: int) -> int:
        shapes = self._program.outputs
        return shapes[-1 - writes][1] if writes < 0 else self._tensors[writes].shape[1]

    def _bytes(self, tensor: int) -> int:
        return row_bytes(self._tensors[tensor]) * self._tensors[tensor].shape[0]

    def _moves(self, first: int, end: int) -> list[Move]:
        """Operations first to end with what they load and store."""
        moves: list[Move] = []
        there: set[int] = set()
        for operation in self._operations[first:end]:
            reads = [(tensor, False) for tensor in operation.operands]
            if operation.code == OpCode.QUANTIZE_INPUT:
                reads = []
            reads += [(tensor, True) for tensor, _ in operation.addends]
            for tensor, _ in reads:
                if tensor not in there:
                    there.add(tensor)
                    moves.append(Move(OpCode.LOAD, [], tensor, Window()))
            writes = -1 - operation.output if operation.is_output else operation.output
            moves.append(
                Move(operation.code, reads, writes, operation.window, operation)
            )
            if operation.is_output:
                continue
            there.add(writes)
            if self._last.get(writes, -1) >= end:
                moves.append(Move(OpCode.STORE, [(writes, False)], writes, Window()))
        return moves

    def _walk(
        self, moves: list[Move], steps: int, done: dict[int, int]
    ) -> Iterator[tuple[int, int, int]]:
        """Move and rows of every run, as the runtime does it."""
        # Line buffers are known by their tensor; a store counts its rows by itself.
        keys = [-1000 - i if m.code == OpCode.STORE else m.writes
                for i, m in enumerate(moves)]  # fmt: skip
        heights = [self._height(move.writes) for move in moves]
        for key in keys:
            done[key] = 0
        for step in range(steps):
            needed = dict.fromkeys(keys, 0)
            for move, key, height in zip(moves, keys, heights, strict=True):
                if move.is_sink:
                    needed[key] = -(-height * (step + 1) // steps)
            for i in reversed(range(len(moves))):
                key = keys[i]
                if needed[key] <= done[key]:
                    continue
                tile = moves[i].code.rule.tile
                needed[key] = min(-(-needed[key] // tile) * tile, heights[i])
                for tensor, addend in moves[i].reads:
                    _, end = rows_read(
                        moves[i].code, moves[i].window, addend,
                        self._tensors[tensor].shape[0], done[key], needed[key],
                    )  # fmt: skip
                    needed[tensor] = max(needed[tensor], end)
            for i, key in enumerate(keys):
                if needed[key] > done[key]:
                    yield i, done[key], needed[key]
                    done[key] = needed[key]

    def cut(self, first: int, end: int) -> Cut | None:
        """Plans operations first to end as one stage; `None` if nothing leaves it."""
        moves = self._moves(first, end)
        sinks = [move for move in moves if move.is_sink]
        if not sinks:
            return None
        height, width = min(
            (self._height(m.writes), self._width(m.writes)) for m in sinks
        )
        steps = -(-height // -(-self._strip_pixels // width))
        line_buffers = {m.writes: LineBuffer() for m in moves if not m.is_sink}
        self._frame(moves, line_buffers)
        dying = {
            m.writes: 0
            for m in moves
            if m.code == OpCode.LOAD and self._last[m.writes] < end
        }
        born = {m.writes: 0 for m in moves if m.code == OpCode.STORE}
        rows = {tensor: row_bytes(self._tensors[tensor]) for tensor in {*dying, *born}}
        whole = sum(self._bytes(tensor) for tensor in dying)
        leads = {(old, new): 0 for old in dying for new in born}
        stored, done = whole, dict[int, int]()
        for i, begin, until in self._walk(moves, steps, done):
            move = moves[i]
            if not move.is_sink:
                line_buffers[move.writes].rows = max(
                    line_buffers[move.writes].rows, until - begin
                )
            for tensor, addend in move.reads:
                low, _ = rows_read(
                    move.code, move.window, addend, self._tensors[tensor].shape[0],
                    begin, until,
                )  # fmt: skip
                lines = line_buffers[tensor]
                lines.rows = max(lines.rows, done[tensor] - low)
            if move.code == OpCode.LOAD and move.writes in dying:
                dying[move.writes] = until * rows[move.writes]
            elif move.code == OpCode.STORE:
                born[move.writes] = until * rows[move.writes]
                stored = max(stored, whole - sum(dying.values()) + sum(born.values()))
                for old, new in leads:
                    if new == move.writes:
                        lead = born[new] - dying[old]
                        leads[old, new] = max(leads[old, new], lead)
        line_bytes = sum(
            align(self.line_buffer(tensor, lines).size)
            for tensor, lines in line_buffers.items()
        )
        lasting = sum(
            self._bytes(tensor)
            for tensor, producer in self._producer.items()
            if producer < first and self._last.get(tensor, -1) >= end
        )
        moved = sum(
            self._bytes(m.writes)
            for m in moves
            if m.code in (OpCode.LOAD, OpCode.STORE)
        )
        weights = sum(
            operation.arrays["weights"].nbytes
            for operation in self._operations[first:end]
            if "weights" in operation.arrays and operation.code != OpCode.QUANTIZE_INPUT
        )
        moved += weights * (steps if weights > _CACHE else 1)
        return Cut(
            first, end, moves, steps, line_buffers, line_bytes,
            lasting + stored + line_bytes, moved, leads,
        )  # fmt: skip

    def _frame(self, moves: list[Move], line_buffers: dict[int, LineBuffer]) -> None:
        """Gives line buffers the zeros around them that windows reach."""
        for move in moves:
            if not move.code.rule.frame:
                continue
            w, tensor = move.window, move.reads[0][0]
            height, width, _ = self._tensors[tensor].shape
            lines = line_buffers[tensor]
            reach = (w.width - 1) * w.dilation[1]
            tile = move.code.rule.tile
            across = -(-self._width(move.writes) // tile) * tile
            last = (across - 1) * w.stride[1] - w.left + reach
            lines.left = max(lines.left, w.left)
            lines.right = max(lines.right, last - width + 1)
            down = (w.height - 1) * w.dilation[0]
            bottom = (self._height(move.writes) - 1) * w.stride[0] - w.top + down
            lines.zero_row |= w.top > 0 or bottom >= height

    def line_buffer(self, tensor: int, lines: LineBuffer) -> Buffer:
        """A line buffer as a buffer of a plan."""
        t = self._tensors[tensor]
        buffer = Buffer(
            Kind.LINE_BUFFER, t.type, *t.shape, t.zero, t.peak, lines.rows, lines.left,
            lines.right, lines.zero_row, slot=t.slot,
        )  # fmt: skip
        buffer.size = (lines.rows + lines.zero_row) * buffer.row_bytes
        return buffer

    def cuts(self) -> list[Cut]:
        """The stages to run, for little memory and few bytes moved."""
        count = len(self._operations)
        possible: dict[int, list[Cut]] = {
            end: [
                cut
                for first in range(max(0, end - _LONGEST), end)
                if (cut := self.cut(first, end)) is not None
            ]
            for end in range(1, count + 1)
        }
        # The least memory that any way needs, at any time.
        least = [0.0] + [float("inf")] * count
        for end, cuts in possible.items():
            for cut in cuts:
                least[end] = min(least[end], max(least[cut.first], cut.memory))
        best: list[tuple[float, list[Cut]]] = [(0.0, [])]
        for end in range(1, count + 1):
            best.append((float("inf"), []))
            for cut in possible[end]:
                traffic, before = best[cut.first]
                allowed = cut.memory <= _TOLERANCE * least[count]
                if allowed and traffic + cut.traffic < best[end][0]:
                    best[end] = (traffic + cut.traffic, [*before, cut])
        return best[count][1]
