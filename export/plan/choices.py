"""What memory and time plans of a program take, from the fastest to the smallest."""

from dqa_keras.export.plan.program import Program
from dqa_keras.export.plan.row_fusion import Stages
from dqa_keras.export.plan.stage_search import StageSearch, possible_walks, time_of


def choices(program: Program) -> list[tuple[float, int]]:
    """The planner's choices for one program.

    Args:
        program: `Program`.

    Returns:
        List of pairs, the fastest plan first: its time over that of the fastest, as
        `time_model` counts it, and the bytes of the stage that takes most. An arena can
        be a little larger, as placing buffers wastes some.
    """
    stages = Stages(program)
    search = StageSearch(stages, possible_walks(stages))
    plans = [
        (time_of(cuts), max(cut.memory for cut in cuts))
        for cuts in search.front(float("inf"))
    ]
    return [(time / plans[0][0], memory) for time, memory in plans]
