"""Writes the plan of a program: where everything lives, and what runs in which order.

A stage may write a tensor over one that it reads for the last time: each row is written
where rows were read already. The sizes of coded rows depend on the data, so a coded
tensor shares its memory with none.
"""

import dataclasses
from collections import Counter

import numpy as np

from dqa_keras.codec.sizes import StorageClass
from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.arena import ALWAYS, Item, align, best_place
from dqa_keras.export.plan.coded_size import (
    coded_bytes,
    group_tensors,
    row_bytes,
    row_scratch,
    storage_class,
)
from dqa_keras.export.plan.ops import OpCode
from dqa_keras.export.plan.peak import peak_of
from dqa_keras.export.plan.program import (
    LINEAR_BITS,
    Operation,
    Packing,
    Program,
    Tensor,
)
from dqa_keras.export.plan.records import (
    NONE,
    Buffer,
    Kind,
    Link,
    Op,
    Plan,
    Stage,
    Table,
    Type,
)
from dqa_keras.export.plan.row_fusion import Stages
from dqa_keras.export.plan.stage_search import StageSearch, possible_walks, time_of
from dqa_keras.export.plan.walk import Cut, Move, Walk

# Readable bytes behind the last buffer, which wide loads may touch.
_SLACK = 64

# Time that a small arena may cost, over the fastest plan, which takes several times the
# memory.
_SLOWER = 2.0

# Memory that may be spent, over the least, on time or on a better placement.
_NEAR = (1.0, 1.01, 1.02, 1.03, 1.05, 1.07, 1.1)
_FAR = (1.2, 1.4, 1.6, 1.8, 2.0)


class _Constants:
    """Weights and arrays behind each other, equal ones once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._known: dict[bytes, int] = {}

    def add(self, array: np.ndarray | None) -> int:
        if array is None:
            return NONE
        content = array.tobytes()
        if content not in self._known:
            self.data += bytes(-len(self.data) % 16)
            self._known[content] = len(self.data)
            self.data += content
        return self._known[content]


Scheduled = tuple[Plan, bytes]


def schedule(
    program: Program, coded_skips: bool = False, arena: int | None = None
) -> Scheduled:
    """Plans a program.

    Args:
        program: `Program`.
        coded_skips: Boolean. Whether to store tensors Huffman-coded that wait for
            later stages, where that makes the arena smaller. Defaults to `False`.
        arena: Integer. Bytes that the arena may take, at least `least_arena`: the
            fastest plan within them. Defaults to `None`: the smallest arena of plans
            that are not much slower than the fastest.

    Returns:
        The `Plan`, and the constants that it refers to.
    """
    ways = _ways(program, coded_skips)
    time = _SLOWER * time_of(ways[0].search.fastest())
    if arena is None:
        found = [way.smallest(time) for way in ways]
        best = min(found, key=_arena)
        if any(t.packing is not None and t.packing.linear for t in program.tensors):
            # Quantizers of linear layers are there to save memory.
            kept = schedule(without_linear(program), coded_skips)[0].arena
            if kept < best[0].arena:
                best = min(best, _smallest(ways), key=_arena)
        return best
    within = [fit for way in ways if (fit := way.within(arena)) is not None]
    if within:
        return min(within, key=lambda fit: fit[0])[1]
    return _smallest(ways)


def least_arena(program: Program, coded_skips: bool) -> tuple[int, str]:
    """The bytes of the smallest arena, and the layer whose values take most of it."""
    plan, _ = _smallest(_ways(program, coded_skips))
    return plan.arena, peak_of(plan).held[0].layer


def _smallest(ways: list["_Ways"]) -> Scheduled:
    return min((way.smallest() for way in ways), key=_arena)


def _arena(scheduled: Scheduled) -> int:
    return scheduled[0].arena


def _stored_as_bytes(program: Program) -> Program:
    """A program whose stored tensors take a byte a code."""
    tensors = [dataclasses.replace(t, packing=None) for t in program.tensors]
    return dataclasses.replace(program, tensors=tensors)


def _ways(program: Program, coded_skips: bool) -> list["_Ways"]:
    """A program's plans with packed stores, and with stores of bytes."""
    stages = Stages(program)
    walks = possible_walks(stages)
    ways = [_Ways(program, stages, walks, coded_skips)]
    if any(tensor.packing is not None for tensor in program.tensors):
        # Packing may need room for a row: bytes can take less.
        plain = _stored_as_bytes(program)
        unpacked = [
            walk
            for walk in walks
            if not any(lines.packed for lines in walk.line_buffers.values())
        ]
        ways.append(_Ways(plain, Stages(plain), unpacked, False))
    return ways


class _Ways:
    """The plans of a program whose tensors are stored in one way."""

    def __init__(
        self, program: Program, stages: Stages, walks: list[Walk], coded_skips: bool
    ) -> None:
        self._program = program
        self._stages = stages
        self._coded_skips = coded_skips
        self.search = StageSearch(stages, walks)

    def smallest(self, time: float = float("inf")) -> Scheduled:
        """The smallest arena of plans that take so much time."""
        least = self.search.least(time)
        # Placing buffers wastes more or less. Coded skips change what takes most.
        factors = _NEAR if not self._coded_skips else (*_NEAR, *_FAR)
        ways = {
            tuple(map(id, cuts)): cuts
            for factor in factors
            if (cuts := self.search.fastest(factor * least))
        }
        found = [self._planned(cuts) for cuts in ways.values()]
        return min(found, key=_arena)

    def within(self, arena: int) -> tuple[float, Scheduled] | None:
        """The time and the plan of the fastest that fits; `None` if none does."""
        for cuts in self.search.front(arena):
            plan = self._planned(cuts)
            if plan[0].arena <= arena:
                return time_of(cuts), plan
        return None

    def _planned(self, cuts: list[Cut]) -> Scheduled:
        best = planned(self._program, self._stages, cuts, {})
        coded: dict[int, StorageClass] = {}
        for tensor, storage in _skips(self._program, cuts) if self._coded_skips else ():
            tried = planned(
                self._program, self._stages, cuts, {**coded, tensor: storage}
            )
            if tried[0].arena < best[0].arena:
                best, coded[tensor] = tried, storage
        return best


def without_linear(program: Program) -> Program:
    """What a program would be if no quantizer rounded outputs of linear layers.

    They take `LINEAR_BITS`, and sums are added to without being stored first. Good for
    its memory alone: it does not compute the same.
    """
    tensors = [_kept(tensor) for tensor in program.tensors]
    reads = Counter(
        tensor
        for op in program.operations
        for tensor in [*op.operands, *(addend for addend, _ in op.addends)]
    )
    makers = {
        op.output: op
        for op in program.operations
        if not op.is_output and op.operands and op.code.adds and not op.addends
    }
    operations: list[Operation] = []
    for op in program.operations:
        for tensor, _ in op.addends if op.code == OpCode.ADD else ():
            packing, maker = program.tensors[tensor].packing, makers.get(tensor)
            if packing is None or not packing.linear or maker is None:
                continue
            if reads[tensor] != 1:
                continue
            others = [addend for addend in op.addends if addend[0] != tensor]
            operations.remove(maker)
            op = dataclasses.replace(
                maker, output=op.output, addends=others, is_output=op.is_output
            )
            break
        operations.append(op)
    return dataclasses.replace(program, tensors=tensors, operations=operations)


def _kept(tensor: Tensor) -> Tensor:
    """A tensor as it is stored if no quantizer of a linear layer rounds it."""
    if tensor.packing is None or not tensor.packing.linear:
        return tensor
    mask = np.zeros(tensor.shape[2], np.bool_)
    kept = dataclasses.replace(tensor, packing=Packing(LINEAR_BITS, 0, True, mask))
    return max(tensor, kept, key=row_bytes)


def _skips(program: Program, cuts: list[Cut]) -> list[tuple[int, StorageClass]]:
    """Stored tensors that a whole stage passes by, the largest first."""
    stage_of: dict[int, int] = {}
    skips = []
    for number, cut in enumerate(cuts):
        for move in cut.walk.moves:
            if move.code == OpCode.STORE:
                stage_of[move.writes] = number
    for tensor, first in stage_of.items():
        storage = storage_class(program.tensors[tensor])
        if storage != "raw" and _last_stage(cuts, tensor) > first + 1:
            skips.append((tensor, storage))
    size = {n: coded_bytes(program.tensors[n], "raw") for n, _ in skips}
    return sorted(skips, key=lambda skip: -size[skip[0]])


def _last_stage(cuts: list[Cut], tensor: int) -> int:
    return max(
        number
        for number, cut in enumerate(cuts)
        for move in cut.walk.moves
        if move.code == OpCode.LOAD and move.writes == tensor
    )


def planned(
    program: Program,
    scheduler: Stages,
    cuts: list[Cut],
    coded: dict[int, StorageClass],
) -> tuple[Plan, bytes]:
    """Plans a program whose stages are known.

    Args:
        program: `Program`.
        scheduler: `Stages` of the program.
        cuts: List of `Cut`. The stages, in order.
        coded: Dictionary from tensors to the class that they are stored in; others are
            stored raw.

    Returns:
        The `Plan`, and the constants that it refers to.
    """
    constants = _Constants()
    tensors = program.tensors
    buffers = [
        Buffer(
            Kind.INPUT, Type.CODES if number in program.bytes else Type.FLOAT, *shape
        )
        for number, shape in enumerate(program.inputs)
    ]
    for number, shape in enumerate(program.outputs):
        codes = program.byte_outputs.get(number)
        buffers.append(
            Buffer(Kind.OUTPUT, Type.FLOAT, *shape)
            if codes is None
            else Buffer(Kind.OUTPUT, Type.CODES, *shape, codes.zero)
        )
    first_output = len(program.inputs)
    tables: list[Table] = []
    items: list[Item] = []
    leads: dict[tuple[int, int], int] = {}
    owner: list[int] = []  # buffer of each item
    stored: dict[int, tuple[int, int]] = {}  # tensor: buffer, item
    ops: list[Op] = []
    stages: list[Stage] = []
    scratches: list[tuple[Op, Item]] = []
    # Bytes, by stage, of a row on its way to or from memory, of tiles or of groups.
    rows = [0] * len(cuts)

    def add_buffer(
        buffer: Buffer, first: int, last: int, held: int = ALWAYS
    ) -> tuple[int, int]:
        buffers.append(buffer)
        items.append(Item(buffer.size, first, last, held=held))
        owner.append(len(buffers) - 1)
        return len(buffers) - 1, len(items) - 1

    for number, cut in enumerate(cuts):
        line_buffers = {}
        for tensor, lines in cut.walk.line_buffers.items():
            buffer = scheduler.line_buffer(tensor, lines)
            if lines.packed:
                buffer.table = len(tables)
                tables += [
                    _table(group, group.packing, "raw", constants)
                    for group in group_tensors(tensors[tensor], lines.group)
                    if group.packing is not None
                ]
            line_buffers[tensor] = add_buffer(buffer, number, number, lines.held)[0]
        for move in cut.walk.moves:
            if move.code == OpCode.STORE:
                t = tensors[move.writes]
                storage = coded.get(move.writes, "raw")
                table, size = NONE, row_bytes(t) * t.shape[0]
                if t.packing is not None:
                    table = len(tables)
                    tables.append(_table(t, t.packing, storage, constants))
                if storage != "raw":
                    size = coded_bytes(t, storage)
                buffer = Buffer(
                    Kind.STORED, t.type, *t.shape, t.zero, t.peak, size=size,
                    table=table, slot=t.slot,
                )  # fmt: skip
                stored[move.writes] = add_buffer(
                    buffer, number, _last_stage(cuts, move.writes)
                )
        for (old, new), lead in cut.leads.items():
            if old in coded or new in coded:
                continue
            leads[stored[old][1], stored[new][1]] = lead
        for move in cut.walk.moves:
            ops.append(_op(move, line_buffers, stored, constants, first_output))
            reads = [tensors[tensor] for tensor, _ in move.reads]
            rows[number] = max(rows[number], scheduler.group_window(cut.walk, move))
            if move.code in (OpCode.LOAD, OpCode.STORE):
                storage = coded.get(move.writes, "raw")
                room = row_scratch(tensors[move.writes], storage)
                rows[number] = max(rows[number], room)
            if move.code == OpCode.WINOGRAD:
                room = winograd.room(reads[0].shape[2], tensors[move.writes].shape)
                rows[number] = max(rows[number], room)
            if move.operation is not None and any(t.slot != NONE for t in reads):
                op = ops[-1]
                addends = sum(link.addend for link in op.links)
                size = 4 * len(move.operation.arrays["bias"]) * (1 + addends) if (
                    "bias" in move.operation.arrays
                ) else 0  # fmt: skip
                if size:
                    scratches.append((op, Item(size, 0, number)))
        stages.append(
            Stage(len(ops) - len(cut.walk.moves), len(cut.walk.moves), cut.walk.strips)
        )
    items += [item for _, item in scratches]
    for item in items:
        item.behind = max(rows) if any(rows[item.first : item.last + 1]) else 0
    end = best_place(items, leads)
    for item, index in zip(items, owner, strict=False):
        buffers[index].offset = item.offset
    for op, item in scratches:
        op.scratch = item.offset
    data = bytes(constants.data)
    arena = align(max(end, max(rows)) + _SLACK)
    return Plan(buffers, tables, ops, stages, arena, len(data)), data


def _table(
    tensor: Tensor, packing: Packing, storage: StorageClass, constants: _Constants
) -> Table:
    """How a tensor is stored; whose codewords it needs stands in the constants."""
    mask = packing.mask.astype(np.uint8)
    if storage != "raw":
        layer = packing.layer.encode()
        named = np.frombuffer(bytes([len(layer)]) + layer, np.uint8)
        mask = np.concatenate([mask, named])
    return Table(
        packing.bits, packing.extra_bits, packing.signed, tensor.shape[2],
        constants.add(mask), storage,
    )  # fmt: skip


def _op(
    move: Move,
    line_buffers: dict[int, int],
    stored: dict[int, tuple[int, int]],
    constants: _Constants,
    first_output: int,
) -> Op:
    """A move as an instruction."""
    if move.code == OpCode.LOAD:
        link = Link(stored[move.writes][0])
        return Op(move.code, line_buffers[move.writes], [link], rows=move.rows)
    if move.code == OpCode.STORE:
        link = Link(line_buffers[move.writes])
        return Op(move.code, stored[move.writes][0], [link], rows=move.rows)
    operation = move.operation
    if operation is None:
        raise ValueError("only loads and stores have no operation")
    if operation.code == OpCode.QUANTIZE_INPUT:
        links = [Link(operation.operands[0])]
    else:
        places = operation.places or [0] * len(operation.operands)
        links = [
            Link(line_buffers[tensor], place)
            for tensor, place in zip(operation.operands, places, strict=True)
        ]
    links += [
        Link(line_buffers[tensor], constants.add(scale), True)
        for tensor, scale in operation.addends
    ]
    output = (
        first_output - 1 - move.writes if move.writes < 0 else line_buffers[move.writes]
    )
    names = ("weights", "multiplier", "bias", "low", "high", "power")
    return Op(
        operation.code,
        output,
        links,
        operation.window,
        **{name: constants.add(operation.arrays.get(name)) for name in names},
        shift=operation.shift,
        rows=move.rows,
        name=operation.name,
    )
