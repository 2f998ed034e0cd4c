import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqa_keras.calibration import observers
from dqa_keras.calibration.observers import BINS, Observer


def observed(samples):
    samples = np.asarray(samples, np.float32)
    observer = Observer(samples.shape[1])
    observer.update(samples, samples.min(0), samples.max(0))
    return observer


def state(observer):
    """Everything an observer knows, with an absent histogram as an empty one."""
    negative = observer.negative
    return [
        observer.minimum.tolist(),
        observer.maximum.tolist(),
        observer.width.tolist(),
        observer.positive.tolist(),
        (np.zeros_like(observer.positive) if negative is None else negative).tolist(),
    ]


def expected_histogram(values, width):
    """Counts of floor(|v| / width) in plain Python integers."""
    counts = np.zeros(BINS, int)
    for value in values:
        counts[int(abs(float(value)) // width)] += 1
    return counts


numbers = st.one_of(
    st.floats(-4, 4, width=32, allow_subnormal=False),
    st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.0**-100, 2.0**-101, -(2.0**-100)]),
)
tables = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12)


@given(tables)
def test_range_is_exact_and_bins_count_magnitudes(rows):
    samples = np.float32(rows)
    observer = observed(samples)
    np.testing.assert_array_equal(observer.minimum, np.minimum(samples.min(0), 0))
    np.testing.assert_array_equal(observer.maximum, np.maximum(samples.max(0), 0))
    for c in range(2):
        x, width = samples[:, c], observer.width[c]
        np.testing.assert_array_equal(
            observer.positive[c], expected_histogram(x[x >= 0], width)
        )
        below = expected_histogram(x[x < 0], width)
        if observer.negative is None:
            assert not below.any()
        else:
            np.testing.assert_array_equal(observer.negative[c], below)


@given(tables, st.data())
def test_any_split_and_order_gives_the_same_to_the_bit(rows, data):
    whole = state(observed(rows))
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(1, len(rows)), max_size=4)))
    parts = [
        [rows[i] for i in order[start:end]]
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)
        if end > start
    ]
    streamed, merged = Observer(2), Observer(2)
    for part in parts:
        samples = np.float32(part)
        streamed.update(samples, samples.min(0), samples.max(0))
        merged.merge(observed(samples))
    assert state(streamed) == whole
    assert state(merged) == whole


@given(tables)
def test_pooled_is_what_one_channel_would_have_seen(rows):
    samples = np.float32(rows)
    pooled = observed(samples).pooled()
    assert state(pooled) == state(observed(samples.reshape(-1, 1)))


def test_widening_adds_up_pairs_of_bins():
    observer = Observer(1)
    first = (np.arange(BINS, dtype=np.float32)[:, None] + np.float32(0.5)) / BINS
    observer.update(first, first.min(0), first.max(0))
    assert observer.positive.tolist() == [[1] * BINS]
    assert observer.width.tolist() == [1 / BINS]
    large = np.float32([[3.0]])
    observer.update(large, large[0], large[0])
    assert observer.width.tolist() == [4 / BINS]
    assert observer.positive[0, : BINS // 4].tolist() == [4] * (BINS // 4)
    assert observer.positive[0, BINS * 3 // 4] == 1
    assert observer.positive.sum() == BINS + 1


def test_each_channel_widens_on_its_own():
    observer = observed([[1.0, 100.0]])
    assert observer.width.tolist() == [2 / BINS, 128 / BINS]


def test_the_range_sees_values_that_the_samples_leave_out():
    observer = Observer(1)
    observer.update(np.float32([[1.0]]), np.float32([-5.0]), np.float32([7.0]))
    assert (observer.minimum[0], observer.maximum[0]) == (-5, 7)
    assert observer.magnitude[0] == 7
    assert observer.positive.sum() == 1
    assert observer.negative.sum() == 0


def test_values_that_are_never_negative_take_one_histogram():
    assert observed([[0.0, 2.0]]).negative is None
    assert observed([[-1.0, 2.0]]).negative is not None


def test_magnitude_is_the_larger_side():
    assert observed([[-3.0, 1.0], [2.0, 4.0]]).magnitude.tolist() == [3, 4]


def test_memory_does_not_grow_with_the_data():
    observer = Observer(3)
    for seed in range(5):
        samples = np.random.default_rng(seed).normal(size=(100, 3)).astype(np.float32)
        observer.update(samples, samples.min(0), samples.max(0))
    assert observer.positive.shape == observer.negative.shape == (3, BINS)
    assert int(observer.positive.sum() + observer.negative.sum()) == 1500


@pytest.mark.parametrize(
    ("signal", "noise", "expected"), [(100, 1, 20), (5, 0, 150), (0, 0, 0), (1, 1, 0)]
)
def test_decibels(signal, noise, expected):
    assert observers.decibels(signal, noise) == pytest.approx(expected)
