"""Stages that take little memory, or the fastest within it, over random networks."""

import hypothesis
import hypothesis.strategies as st
import pytest
from programs import check
from scheduling_test import network

from dqa_keras.export.plan.encoding import describe
from dqa_keras.export.plan.peak import peak_of
from dqa_keras.export.plan.row_fusion import Stages
from dqa_keras.export.plan.scheduling import least_arena, schedule
from dqa_keras.export.plan.stage_search import (
    StageSearch,
    possible_walks,
    time_of,
)

# Measuring what is covered takes longer than the tests themselves.
pytestmark = pytest.mark.no_cover


@hypothesis.settings(max_examples=6, deadline=None, derandomize=True)
@hypothesis.given(
    seed=st.integers(0, 1000), linear=st.booleans(), bits=st.integers(1, 5)
)
def test_fewer_bits_never_take_more_memory(seed, linear, bits):
    arenas = []
    for more in (0, 1):
        plan, _ = schedule(network(seed, linear, bits + more))
        arenas.append(plan.arena)
    program = network(seed, linear, bits + 1)
    for tensor in program.tensors:
        tensor.packing = None
    arenas.append(schedule(program)[0].arena)
    assert arenas == sorted(arenas)


def test_more_memory_buys_time():
    program = network(5, linear=False)
    stages = Stages(program)
    search = StageSearch(stages, possible_walks(stages))
    ways = [*search.front(float("inf"))]
    assert len(ways) > 3
    times = [time_of(cuts) for cuts in ways]
    sizes = [max(cut.memory for cut in cuts) for cuts in ways]
    assert times == sorted(times)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == search.least()
    assert search.fastest(search.least() - 1) == []


@pytest.mark.parametrize("share", [1.0, 1.5])
def test_an_arena_is_kept_to(share):
    program = network(1, linear=True)
    least, _ = least_arena(program, coded_skips=False)
    arena = int(share * least)
    plan, constants = schedule(program, arena=arena)
    assert least <= plan.arena <= arena
    check(program, plan=(plan, constants))


def test_a_plan_says_what_fills_it_most():
    plan, _ = schedule(network(1, linear=False))
    peak = peak_of(plan)
    assert plan.arena - 2 * 64 <= peak.size
    text = describe(plan)
    assert (
        f"peak in stage {peak.stage}, {peak.size} B:\n  {peak.held[0].size} B" in text
    )
