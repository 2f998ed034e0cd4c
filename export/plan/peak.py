"""What fills the arena of a plan where it is fullest."""

import dataclasses

from dqa_keras.export.plan.records import Kind, Plan


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
    """

    stage: int
    held: tuple[Held, ...]

    @property
    def size(self) -> int:
        """Bytes of all that is held."""
        return sum(held.size for held in self.held)


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
    for number in range(len(plan.stages)):
        held = [
            Held(buffer, plan.buffers[buffer].size, layers[buffer])
            for buffer, begin in first.items()
            if begin <= number <= last[buffer]
            and plan.buffers[buffer].kind in (Kind.LINE_BUFFER, Kind.STORED)
        ]
        held.sort(key=lambda one: -one.size)
        peaks.append(Peak(number, tuple(held)))
    return max(peaks, key=lambda peak: peak.size)
