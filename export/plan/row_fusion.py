"""Cuts a program into stages and finds what each needs.

Operations run in stages. Inside a stage rows flow from operation to operation through
line buffers, which hold only the last rows needed. Between stages tensors are stored
whole, in packed form. `stage_search` chooses among the ways to cut.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.arena import ALWAYS, align
from dqa_keras.export.plan.coded_size import kept_row_bytes, row_bytes, row_scratch
from dqa_keras.export.plan.ops import BLOCK, GROUP, OpCode, Window
from dqa_keras.export.plan.program import Operation, Program
from dqa_keras.export.plan.records import Buffer, Kind, Type
from dqa_keras.export.plan.time_model import CALL, COPIED_BYTE, PACKED_CODE, row_time
from dqa_keras.export.plan.walk import (
    Cut,
    LineBuffer,
    Move,
    Step,
    Walk,
    call_time,
    rows_first_kept,
    rows_kept,
    rows_seen,
)

# Channels that are computed at once in front of a depthwise convolution: what its
# kernels take together.
TOGETHER = 32


class Stages:
    """What stages of a program take.

    Args:
        program: `Program`.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._tensors = program.tensors
        self._operations = self._wanted(program.operations)
        self._producer: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._readers: Counter[int] = Counter()
        self._rows: dict[tuple, tuple[list[int], list[int]]] = {}
        for index, operation in enumerate(self._operations):
            if not operation.is_output:
                self._producer[operation.output] = index
            for tensor in self._read_by(operation):
                self._last[tensor] = index
                self._readers[tensor] += 1
        self._stored = (
            np.array([*self._producer.values()]),
            np.array([self._last.get(tensor, -1) for tensor in self._producer]),
            np.array([self._bytes(tensor) for tensor in self._producer]),
        )

    @property
    def count(self) -> int:
        """Operations that an output depends on."""
        return len(self._operations)

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

    def _shape(self, writes: int) -> tuple[int, int, int]:
        """The shape of what a move writes."""
        if writes < 0:
            return self._program.outputs[-1 - writes]
        return self._tensors[writes].shape

    def widths(self, first: int, end: int) -> set[int]:
        """The widths of all that operations first to end read and write."""
        tensors = set()
        for operation in self._operations[first:end]:
            tensors.update(self._read_by(operation))
            tensors.add(
                -1 - operation.output if operation.is_output else operation.output
            )
        return {self._shape(tensor)[1] for tensor in tensors}

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

    def _pairs(self, moves: list[Move]) -> dict[int, Move]:
        """Convolutions that may compute channels in groups, by what they write.

        A depthwise one behind each is all that reads it.
        """
        return {
            maker.writes: maker
            for maker, reader in itertools.pairwise(moves)
            if (maker.code, reader.code) == (OpCode.CONV, OpCode.DEPTHWISE)
            and reader.reads[0][0] == maker.writes
            and self._readers[maker.writes] == len(maker.reads) == 1
            and self._tensors[maker.writes].type == Type.CODES
            and self._shape(maker.writes)[2] % BLOCK == 0
        }

    def _step(self, move: Move) -> Step:
        height = self._shape(move.writes)[0]
        return Step(move, height, self._row_time(move), call_time(move))

    def _steps(self, moves: list[Move], pairs: dict[int, Move]) -> list[Step]:
        """Moves with the rows that they read of each other."""
        steps = [self._step(move) for move in moves]
        makers = {
            step.move.writes: step for step in steps if step.move.code != OpCode.STORE
        }
        for step in steps:
            for tensor, addend in step.move.reads:
                firsts, ends = self._rows_of(step, tensor, addend)
                if tensor in pairs:
                    maker = makers[tensor]
                    step.grouped = maker
                    step.rows_kept = rows_kept(firsts, ends, maker.height)
                    step.first_kept = rows_first_kept(
                        step.move.window, firsts[0], step.rows_kept, maker.height
                    )
                    groups = -(-self._shape(tensor)[2] // TOGETHER)
                    step.copied = (step.rows_kept + 1) * math.prod(
                        self._shape(tensor)[1:]
                    )
                    step.row_time += maker.row_time * maker.height / step.height
                    step.row_time += step.copied * COPIED_BYTE
                    step.call_time += maker.call_time + 2 * groups * CALL
                    maker.row_time = 0.0  # most are computed with the reader's rows
                    tensor = maker.move.reads[0][0]
                    inner = self._rows_of(maker, tensor, False)
                    made = [step.first_kept, *(min(e, maker.height) for e in ends[1:])]
                    firsts = [inner[0][min(e, maker.height - 1)] for e in made[:-1]]
                    ends = [inner[1][e] for e in made]
                step.reads.append((makers[tensor], firsts, ends))
        return steps

    def _packable(self, steps: list[Step]) -> list[tuple[int, float]]:
        """See `Walk`."""
        found = []
        for step in steps:
            if step.grouped is None:
                continue
            number, time = (
                step.move.reads[0][0],
                step.copied * step.height * PACKED_CODE,
            )
            plain, packed = (
                kept_row_bytes(self._tensors[number], TOGETHER, packed)
                for packed in (False, True)
            )
            if packed < plain:
                saved = step.rows_kept * (plain - packed)
                found.append((saved / time, number, time))
        return [(number, time) for _, number, time in sorted(found, reverse=True)]

    def _rows_of(
        self, step: Step, tensor: int, addend: bool
    ) -> tuple[list[int], list[int]]:
        """The rows of a tensor that a move sees, by its own first row and end."""
        move = step.move
        key = (move.code, move.writes, tensor, addend)
        if key not in self._rows:
            height = self._tensors[tensor].shape[0]
            pairs = [
                rows_seen(move.code, move.window, addend, height, y, y + 1)
                for y in range(step.height)
            ]
            # A window may lie in the zeros alone: it asks for the row next to them.
            self._rows[key] = (
                [min(first, height - 1) for first, _ in pairs],
                [0, *(max(end, 1) for _, end in pairs)],
            )
        return self._rows[key]

    @staticmethod
    def _walk(steps: list[Step], strips: int) -> Iterator[tuple[Step, int]]:
        """Every step and the end of its rows, as the runtime runs them.

        Who asks sets `done` of the step to that end.

        A move that takes rows out of the stage asks for those that its inputs lack,
        and they for theirs: nothing is computed before it is wanted.
        """
        sinks = [step for step in steps if step.move.is_sink]
        for strip in range(1, strips + 1):
            for sink in sinks:
                asked = [(sink, -(-sink.height * strip // strips))]
                while asked:
                    step, wanted = asked[-1]
                    if step.done >= wanted:
                        asked.pop()
                        continue
                    end = min(step.done + step.move.rows, step.height)
                    if step is sink:
                        end = min(end, wanted)
                    tile = step.move.code.rule.tile
                    if tile > 1:
                        end = min(-(-end // tile) * tile, step.height)
                    kept = step.grouped
                    if kept is not None and kept.done < step.first_kept:
                        asked.append((kept, step.first_kept))
                        continue
                    for maker, _, ends in step.reads:
                        needed = min(ends[end], maker.height)
                        if maker.done < needed:
                            asked.append((maker, needed))
                            break
                    else:
                        yield step, end

    def walk(
        self, first: int, end: int, pixels: int = 1, grouped: bool = False
    ) -> Walk | None:
        """Walks through operations first to end as one stage.

        Args:
            first: Integer. Number of the first operation.
            end: Integer. Number behind the last one.
            pixels: Integer. How many an op computes at once, at least, if they exist.
                Defaults to `1`: whole rows, one by one. With more, weights are loaded
                less often, and line buffers are larger.
            grouped: Boolean. Whether convolutions in front of depthwise ones compute a
                group of channels at once. Defaults to `False`.

        Returns:
            A `Walk`, or `None` if nothing leaves the stage or could be grouped.
        """
        moves = self._moves(first, end)
        sinks = [move for move in moves if move.is_sink]
        pairs = self._pairs(moves) if grouped else {}
        if not sinks or (grouped and not pairs):
            return None
        for move in moves:
            move.rows = -(-pixels // self._shape(move.writes)[1])
        height, width, _ = min(self._shape(m.writes) for m in sinks)
        strips = -(-height // -(-pixels // width))
        steps = self._steps(moves, pairs)
        dying = [
            step
            for step in steps
            if step.move.code == OpCode.LOAD and self._last[step.move.writes] < end
        ]
        born = [step for step in steps if step.move.code == OpCode.STORE]
        stored = []
        calls, time = 0, 0.0
        for step, until in self._walk(steps, strips):
            begin = step.done
            time += step.call_time + (until - begin) * step.row_time
            step.rows = max(step.rows, until - begin)
            for maker, firsts, ends in step.reads:
                # Zeros behind the last row take the place of a row that is read no
                # more.
                maker.done = max(maker.done, ends[until])
                maker.rows = max(maker.rows, maker.done - firsts[begin])
                since = maker.written[max(firsts[begin], 0)]
                maker.held |= (2 << calls) - (1 << since)
            step.held |= 1 << calls
            step.written += [calls] * (until - begin)
            step.done = until
            calls += 1
            if step.move.code == OpCode.STORE:
                rows = [min(s.done, s.height) for s in (*dying, *born)]
                stored.append((rows[: len(dying)], rows[len(dying) :]))
        line_buffers = {
            # One row more than there are holds all zeros above and below.
            s.move.writes: LineBuffer(min(s.rows, s.height + 1), held=s.held)
            for s in steps
            if not s.move.is_sink
        }
        for s in steps:
            if s.rows_kept:
                kept = LineBuffer(s.rows_kept, group=TOGETHER)
                line_buffers[s.move.reads[0][0]] = kept
        self._frame(moves, line_buffers)
        return Walk(
            first, end, moves, strips, line_buffers, time, calls, stored,
            [s.move.writes for s in dying], [s.move.writes for s in born],
            self._packable(steps),
        )  # fmt: skip

    def cut(self, walk: Walk) -> Cut:
        """What a stage takes."""
        old = [row_bytes(self._tensors[tensor]) for tensor in walk.dying]
        new = [row_bytes(self._tensors[tensor]) for tensor in walk.born]
        most = whole = sum(self._bytes(tensor) for tensor in walk.dying)
        leads = {(i, j): 0 for i in walk.dying for j in walk.born}
        for loaded, stored in walk.stored:
            gone = [rows * size for rows, size in zip(loaded, old, strict=True)]
            there = [rows * size for rows, size in zip(stored, new, strict=True)]
            most = max(most, whole - sum(gone) + sum(there))
            for i, before in zip(walk.dying, gone, strict=True):
                for j, after in zip(walk.born, there, strict=True):
                    leads[i, j] = max(leads[i, j], after - before)
        memory = most + self._lasting(walk.first, walk.end) + self._scratch(walk)
        memory += self._lines_end(walk)
        return Cut(walk, memory, leads)

    def _lines_end(self, walk: Walk) -> int:
        """Bytes of line buffers, if those that are not held at once share memory."""
        buffers = [
            (align(self.line_buffer(tensor, lines).size), lines.held)
            for tensor, lines in walk.line_buffers.items()
        ]
        alone = sum(size for size, held in buffers if held == ALWAYS)
        placed: list[tuple[int, int, int]] = []  # first and end byte, when held
        for size, held in sorted(buffers, reverse=True):
            if held == ALWAYS:
                continue
            first = 0
            for begin, end, other in sorted(placed):
                if other & held and begin < first + size:
                    first = max(first, end)
            placed.append((first, first + size, held))
        return alone + max((end for _, end, _ in placed), default=0)

    def _lasting(self, first: int, end: int) -> int:
        """Bytes of stored tensors that a stage passes by."""
        producers, lasts, sizes = self._stored
        return int(sizes[(producers < first) & (lasts >= end)].sum())

    def group_window(self, walk: Walk, move: Move) -> int:
        """Bytes of the rows that a window covers of a group of channels."""
        lines = walk.line_buffers.get(move.reads[0][0]) if move.reads else None
        if lines is None or not lines.group:
            return 0
        _, width, channels = self._shape(move.reads[0][0])
        w = move.window
        rows = (move.rows - 1) * w.stride[0] + (w.height - 1) * w.dilation[0] + 1
        return rows * (lines.left + width + lines.right) * min(lines.group, channels)

    def _scratch(self, walk: Walk) -> int:
        """Bytes of rows on their way to or from memory, of tiles, or of groups."""
        room = 0
        for move in walk.moves:
            room = max(room, self.group_window(walk, move))
            shape = self._shape(move.writes)
            if move.code == OpCode.STORE:
                room = max(room, row_scratch(self._tensors[move.writes], "raw"))
            elif move.code == OpCode.WINOGRAD:
                channels = self._tensors[move.reads[0][0]].shape[2]
                room = max(room, winograd.room(channels, shape))
        return room

    def _row_time(self, move: Move) -> float:
        _, width, outputs = self._shape(move.writes)
        inputs = self._tensors[move.reads[0][0]].shape[2] if move.reads else outputs
        return row_time(move.code, move.window, width, inputs, outputs)

    def _frame(self, moves: list[Move], line_buffers: dict[int, LineBuffer]) -> None:
        """Gives line buffers the zeros around them that windows reach."""
        for move in moves:
            partial = move.code == OpCode.CONCAT or self._shape(move.writes)[2] % GROUP
            if partial and not move.is_sink:
                # Channels that nothing writes stay zero.
                line_buffers[move.writes].held = ALWAYS
            if not move.code.rule.frame:
                continue
            w, tensor = move.window, move.reads[0][0]
            height, width, _ = self._tensors[tensor].shape
            lines = line_buffers[tensor]
            reach = (w.width - 1) * w.dilation[1]
            tile = move.code.rule.tile
            across = -(-self._shape(move.writes)[1] // tile) * tile
            last = (across - 1) * w.stride[1] - w.left + reach
            lines.left = max(lines.left, w.left)
            lines.right = max(lines.right, last - width + 1)
            down = (w.height - 1) * w.dilation[0]
            bottom = (self._shape(move.writes)[0] - 1) * w.stride[0] - w.top + down
            if lines.left or lines.right or w.top > 0 or bottom >= height:
                lines.held = ALWAYS

    def line_buffer(self, tensor: int, lines: LineBuffer) -> Buffer:
        """A line buffer as a buffer of a plan."""
        t = self._tensors[tensor]
        buffer = Buffer(
            Kind.LINE_BUFFER, t.type, *t.shape, t.zero, t.peak, lines.rows, lines.left,
            lines.right, slot=t.slot, group=lines.group,
        )  # fmt: skip
        buffer.size = lines.rows * buffer.row_bytes
        if lines.group:
            buffer.size = lines.rows * kept_row_bytes(t, lines.group, lines.packed)
        return buffer
