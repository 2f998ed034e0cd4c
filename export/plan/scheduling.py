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
from dqa_keras.export.plan.arena import Item, align, best_place
from dqa_keras.export.plan.coded_size import (
    coded_bytes,
    row_bytes,
    row_scratch,
    storage_class,
)
from dqa_keras.export.plan.ops import OpCode
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
from dqa_keras.export.plan.row_fusion import STRIP_PIXELS, Cut, Move, Stages

# Readable bytes behind the last buffer, which wide loads may touch.
_SLACK = 64

# Pixels of a strip at least, where the usual number takes too much memory.
_THINNER_STRIPS = (12, 6, 1)


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


def schedule(program: Program, coded_skips: bool = False) -> tuple[Plan, bytes]:
    """Plans a program.

    Args:
        program: `Program`.
        coded_skips: Boolean. Whether to store tensors Huffman-coded that wait for
            later stages, where that makes the arena smaller. Defaults to `False`.

    Returns:
        The `Plan`, and the constants that it refers to.
    """
    best = _scheduled(program, coded_skips, STRIP_PIXELS)
    if any(t.packing is not None and t.packing.linear for t in program.tensors):
        # Quantizers of linear layers are there to save memory, but their sums take a
        # line buffer more. What they must not exceed, thinner strips bring them below.
        kept = _scheduled(without_linear(program), coded_skips, STRIP_PIXELS)[0]
        for pixels in _THINNER_STRIPS:
            if best[0].arena <= kept.arena:
                break
            thinner = _scheduled(program, coded_skips, pixels)
            if thinner[0].arena < best[0].arena:
                best = thinner
    return best


def _scheduled(
    program: Program, coded_skips: bool, strip_pixels: int
) -> tuple[Plan, bytes]:
    """The plan with strips of at least so many pixels."""
    scheduler = Stages(program, strip_pixels)
    cuts = scheduler.cuts()
    best = planned(program, scheduler, cuts, {})
    coded: dict[int, StorageClass] = {}
    for tensor, storage in _skips(program, cuts) if coded_skips else ():
        tried = planned(program, scheduler, cuts, {**coded, tensor: storage})
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
        for move in cut.moves:
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
        for move in cut.moves
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
    row = 0  # bytes that a row takes on its way to or from memory, or some tiles

    def add_buffer(buffer: Buffer, first: int, last: int) -> tuple[int, int]:
        buffers.append(buffer)
        items.append(Item(buffer.size, first, last))
        owner.append(len(buffers) - 1)
        return len(buffers) - 1, len(items) - 1

    for number, cut in enumerate(cuts):
        line_buffers = {
            tensor: add_buffer(scheduler.line_buffer(tensor, lines), number, number)[0]
            for tensor, lines in cut.line_buffers.items()
        }
        for move in cut.moves:
            if move.code == OpCode.STORE:
                t = tensors[move.writes]
                storage = coded.get(move.writes, "raw")
                table, size = NONE, row_bytes(t) * t.shape[0]
                if t.packing is not None:
                    table = len(tables)
                    tables.append(_table(t, t.packing, storage, constants))
                    row = max(row, row_scratch(t, storage))
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
        for move in cut.moves:
            ops.append(_op(move, line_buffers, stored, constants, first_output))
            reads = [tensors[tensor] for tensor, _ in move.reads]
            if move.code == OpCode.WINOGRAD:
                room = winograd.room(reads[0].shape[2], tensors[move.writes].shape)
                row = max(row, room)
            if move.operation is not None and any(t.slot != NONE for t in reads):
                op = ops[-1]
                addends = sum(link.addend for link in op.links)
                size = 4 * len(move.operation.arrays["bias"]) * (1 + addends) if (
                    "bias" in move.operation.arrays
                ) else 0  # fmt: skip
                if size:
                    scratches.append((op, Item(size, 0, len(cuts) - 1)))
        stages.append(Stage(len(ops) - len(cut.moves), len(cut.moves), cut.steps))
    items += [item for _, item in scratches]
    end = best_place(items, leads)
    for item, index in zip(items, owner, strict=False):
        buffers[index].offset = item.offset
    for op, item in scratches:
        op.scratch = item.offset
    data = bytes(constants.data)
    arena = align(end + row + _SLACK)
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
        return Op(move.code, line_buffers[move.writes], [Link(stored[move.writes][0])])
    if move.code == OpCode.STORE:
        return Op(move.code, stored[move.writes][0], [Link(line_buffers[move.writes])])
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
        name=operation.name,
    )
