"""Chooses the stages of a program: little memory, little time.

Memory is that of the stage that takes most, time the sum over all stages. All ways to
cut are compared, as long as planning does not take too long, each with rows computed
one by one and with several at once.
"""

from collections.abc import Iterator

from dqa_keras.export.plan.row_fusion import Stages
from dqa_keras.export.plan.walk import Cut, Walk

# Pixels that an op computes at once, at least. More hardly saves time.
_PIXELS = (1, 12, 24, 48, 96)
# Calls of ops that planning walks through before it stops to look at longer stages:
# some seconds.
_EFFORT = 1_500_000
# Steps in which memory is made smaller.
_FINER = 0.995


def possible_walks(stages: Stages) -> list[Walk]:
    """All stages, short ones first, as far as effort allows, and the whole program."""
    walks = []
    effort, count = 0, stages.count
    for length in range(1, count + 1):
        if effort > _EFFORT and length < count:
            continue
        for end in range(length, count + 1):
            for walk in _variants(stages, end - length, end):
                walks.append(walk)
                effort += walk.calls
    return walks


def _variants(stages: Stages, first: int, end: int) -> Iterator[Walk]:
    """A stage with few and with more rows at once, or with channels in groups."""
    widths = stages.widths(first, end)
    seen = set()
    for pixels in _PIXELS:
        rows = tuple(-(-pixels // width) for width in widths)
        if rows in seen:
            continue
        seen.add(rows)
        walk = stages.walk(first, end, pixels)
        if walk is not None:
            yield walk
    grouped = stages.walk(first, end, grouped=True)
    if grouped is not None:
        yield grouped
        yield from grouped.packed()


class StageSearch:
    """The ways to cut a program into stages.

    Args:
        stages: `Stages` of the program.
        walks: List of `Walk`. Stages to choose from.
    """

    def __init__(self, stages: Stages, walks: list[Walk]) -> None:
        self._ends: list[list[Cut]] = [[] for _ in range(stages.count + 1)]
        for walk in walks:
            self._ends[walk.end].append(stages.cut(walk))

    def fastest(self, memory: float = float("inf")) -> list[Cut]:
        """The fastest stages of at most so many bytes; none if there is no way."""
        best: list[tuple[float, Cut | None]] = [(0.0, None)]
        for cuts in self._ends[1:]:
            ways = [
                (best[cut.walk.first][0] + cut.walk.time, cut)
                for cut in cuts
                if cut.memory <= memory
            ]
            best.append(min(ways, key=_time, default=(float("inf"), None)))
        if best[-1][0] == float("inf"):
            return []
        chosen: list[Cut] = []
        end = len(best) - 1
        while end > 0 and (cut := best[end][1]) is not None:
            chosen.append(cut)
            end = cut.walk.first
        return chosen[::-1]

    def least(self, time: float = float("inf")) -> int:
        """The least bytes that stages take which need at most so much time."""
        sizes = sorted({cut.memory for cuts in self._ends for cut in cuts})
        low, high = 0, len(sizes) - 1
        while low < high:
            middle = (low + high) // 2
            cuts = self.fastest(sizes[middle])
            if cuts and time_of(cuts) <= time:
                high = middle
            else:
                low = middle + 1
        return sizes[low]

    def front(self, memory: float) -> Iterator[list[Cut]]:
        """The fastest stages of so many bytes, then of fewer, down to the least."""
        least = self.least()
        while cuts := self.fastest(memory):
            yield cuts
            most = max(cut.memory for cut in cuts)
            if most <= least:
                return
            memory = max(least, _FINER * most)


def time_of(cuts: list[Cut]) -> float:
    """The time of stages, as `time_model` counts it."""
    return sum(cut.walk.time for cut in cuts)


def _time(way: tuple[float, Cut | None]) -> float:
    return way[0]
