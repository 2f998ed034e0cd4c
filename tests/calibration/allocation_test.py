import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqa_keras.calibration import allocation


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=20),
    st.floats(0, 1, allow_nan=False),
)
def test_no_channel_left_out_beats_a_marked_one(scores, fraction):
    scores = np.array(scores, float)
    mask = allocation.top_share(scores, fraction)
    assert mask.sum() == np.rint(fraction * scores.size)
    if mask.any() and not mask.all():
        assert scores[mask].min() >= scores[~mask].max()


def test_equal_scores_go_to_the_lower_channel():
    assert allocation.top_share(np.ones(4), 0.5).tolist() == [True, True, False, False]
    scores = np.array([1.0, 2.0, 1.0, 1.0])
    assert allocation.top_share(scores, 0.5).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("fraction", "marked"), [(0, 0), (1, 3)])
def test_the_ends_mark_none_and_all(fraction, marked):
    mask = allocation.top_share(np.array([0.0, 5.0, -1.0]), fraction)
    assert mask.dtype == bool
    assert mask.sum() == marked


def test_a_share_that_rounds_to_nothing_marks_nothing():
    assert not allocation.top_share(np.arange(3.0), 0.1).any()


def test_ties_go_to_the_lower_channel_in_large_layers_too():
    # Unstable sorts keep the order of short or all-equal arrays by accident.
    scores = np.random.default_rng(0).integers(0, 3, 400).astype(float)
    mask = allocation.top_share(scores, 0.5)
    ranked = sorted(range(400), key=lambda channel: (-scores[channel], channel))
    assert np.flatnonzero(mask).tolist() == sorted(ranked[:200])
