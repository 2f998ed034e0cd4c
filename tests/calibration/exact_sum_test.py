import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dqa_keras.calibration import exact_sum

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def summed(values):
    return sum((exact_sum.limbs(np.float32([v])) for v in values), exact_sum.zeros(1))


@given(st.lists(floats, max_size=20), st.randoms())
def test_any_order_and_grouping_gives_the_same_limbs_value(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    cut = random.randint(0, len(values))
    parts = summed(shuffled[:cut]) + summed(shuffled[cut:])
    assert exact_sum.value(parts).tobytes() == exact_sum.value(summed(values)).tobytes()


@given(st.lists(floats, max_size=20))
def test_the_value_is_the_exact_sum_but_for_rounding(values):
    expected = math.fsum(values)
    total = exact_sum.value(summed(values))[0]
    assert math.isclose(total, expected, rel_tol=1e-15, abs_tol=0)


@given(floats)
def test_one_number_comes_back(number):
    assert exact_sum.value(summed([number]))[0] == number


def test_many_large_numbers_leave_room():
    limbs = exact_sum.limbs(np.full(1, np.finfo(np.float32).max)) * 2**30
    assert exact_sum.value(limbs)[0] == float(np.finfo(np.float32).max) * 2**30


def test_each_channel_has_its_own_sum():
    values = np.float32([0.0, 1.5, -3.0, 2.0**-149, 2.0**127])
    np.testing.assert_array_equal(exact_sum.value(exact_sum.limbs(values)), values)
