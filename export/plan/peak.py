"""What fills the arena of a plan where it is fullest."""

import dataclasses

from dqa_keras.export.plan import winograd
from dqa_keras.export.plan.ops import GROUP, OpCode
from dqa_keras.export.plan.records import NONE, Kind, Op, Plan


@dataclasses.dataclass(frozen=True)
class Held:
    """A buffer that is in the arena while a stage runs.

    Args:
        buffer: Integer. Its number.
        size: Integer. Bytes.
        layer: String. The name of the op that makes its values.
    """

    buffer: int
    size: int
    layer: str


@dataclasses.dataclass(frozen=True)
class Peak:
    """The stage during which most bytes are held.

    Args:
        stage: Integer. Its number.
        held: Tuple of `Held`, the largest first. A stored buffer may lie where another
            one is read no more, so sizes can add up to more than the arena.
        room: Integer. Bytes that its ops work in besides: rows of a group of channels,
            tiles, or a row of codes on its way to or from memory.
    """

    stage: int
    held: tuple[Held, ...]
    room: int

    @property
    def size(self) -> int:
        """Bytes of all that is held, with the room to work in."""
        return self.room + sum(held.size for held in self.held)


def _room(plan: Plan, op: Op) -> int:
    """Bytes that an op works in; of a coded row only the codes."""
    output = plan.buffers[op.output]
    source = plan.buffers[op.links[0].buffer]
    if op.code == OpCode.WINOGRAD:
        shape = (output.height, output.width, output.channels)
        return winograd.room(source.channels, shape)
    if source.group:
        w = op.window
        rows = (op.rows - 1) * w.stride[0] + (w.height - 1) * w.dilation[0] + 1
        columns = source.left + source.width + source.right
        return rows * columns * min(source.group, source.channels)
    if op.code not in (OpCode.LOAD, OpCode.STORE):
        return 0
    stored = source if op.code == OpCode.LOAD else output
    # Whole groups are packed where they lie in their line buffer.
    if stored.table == NONE or stored.channels % GROUP == 0:
        return 0
    return stored.width * stored.channels


def peak_of(plan: Plan) -> Peak:
    """The peak of a plan."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    layers: dict[int, str] = {}
    for number, stage in enumerate(plan.stages):
        for op in plan.ops[stage.first : stage.first + stage.count]:
            reads = [link.buffer for link in op.links]
            made_by = next((layers[read] for read in reads if read in layers), "")
            layers[op.output] = op.name or made_by
            first.setdefault(op.output, number)
            for buffer in (op.output, *reads):
                last[buffer] = number
    peaks = []
    for number, stage in enumerate(plan.stages):
        held = [
            Held(buffer, plan.buffers[buffer].size, layers[buffer])
            for buffer, begin in first.items()
            if begin <= number <= last[buffer]
            and plan.buffers[buffer].kind in (Kind.LINE_BUFFER, Kind.STORED)
        ]
        held.sort(key=lambda one: -one.size)
        ops = plan.ops[stage.first : stage.first + stage.count]
        room = max((_room(plan, op) for op in ops), default=0)
        peaks.append(Peak(number, tuple(held), room))
    return max(peaks, key=lambda peak: peak.size)
