import hypothesis.extra.numpy as npst
import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dqa_keras import quantizers

WIDTHS = [(n, m) for n in range(1, 9) for m in range(5) if n + m <= 8]


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def encode(x, scale, mask, n, m, signed, function=quantizers.encode):
    q_min, q_max = quantizers.code_range(n, m, np.asarray(mask), signed)
    inverse = np.float32(1) / np.asarray(scale, np.float32)
    return function(np.asarray(x, np.float32), inverse, q_min, q_max)


@st.composite
def activations(draw):
    """Any x (N, C) with scales, mask, widths and signedness."""
    n, m = draw(st.sampled_from(WIDTHS))
    channels = draw(st.integers(1, 4))
    floats = st.floats(-1000, 1000, width=32, allow_subnormal=False)
    x = draw(
        npst.arrays(np.float32, (draw(st.integers(1, 6)), channels), elements=floats)
    )
    scale = draw(
        npst.arrays(
            np.float32, channels, elements=st.floats(2.0**-12, 2.0**6, width=32)
        )
    )
    mask = draw(npst.arrays(np.bool_, channels))
    return x, scale, mask, n, m, draw(st.booleans())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("n", "m"), WIDTHS)
def test_codes_and_values_equal_the_formula_to_the_bit(n, m, signed):
    random = np.random.default_rng(n * 10 + m)
    mask = np.array([True, False, True, False])
    scale = np.array([0.013, 0.7, 0.25, 3.1], np.float32)
    x = (random.normal(size=(2, 9, 4)) * scale * 2 ** (n + m - 1)).astype(np.float32)
    q = to_numpy(encode(x, scale, mask, n, m, signed))
    expected = oracle.codes(x, scale, mask, n, m, signed)
    np.testing.assert_array_equal(q, expected)
    x_hat = to_numpy(quantizers.decode(q, scale))
    assert x_hat.dtype == np.float32
    np.testing.assert_array_equal(x_hat, oracle.values(expected, scale))


@given(activations())
def test_codes_equal_the_formula_for_any_input(case):
    np.testing.assert_array_equal(to_numpy(encode(*case)), oracle.codes(*case))


@given(activations())
def test_straight_through_codes_equal_codes_for_any_input(case):
    q = encode(*case, function=quantizers.encode_straight_through)
    np.testing.assert_array_equal(to_numpy(q), oracle.codes(*case))


@given(activations())
def test_split_then_merge_gives_the_codes_back(case):
    _, _, mask, n, m, signed = case
    q = oracle.codes(*case)
    base, residual = quantizers.split(q.astype(np.float32), mask, m)
    base, residual = to_numpy(base), to_numpy(residual)
    assert base.dtype == residual.dtype == np.int32
    low, high = oracle.code_range(n, signed)
    assert low <= base.min() <= base.max() <= high
    assert 0 <= residual.min() <= residual.max() < 2**m
    assert not residual[..., ~mask].any()
    np.testing.assert_array_equal(
        to_numpy(quantizers.merge(base, residual, mask, m)), q
    )


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("n", "m"), WIDTHS)
def test_every_code_of_an_important_channel_splits_into_n_bits_and_m_bits(n, m, signed):
    low, high = oracle.code_range(n + m, signed)
    q = np.arange(low, high + 1)[:, None]
    mask = np.array([True])
    base, residual = map(to_numpy, quantizers.split(q, mask, m))
    np.testing.assert_array_equal(base, np.floor(q / 2**m))
    np.testing.assert_array_equal(residual, q - base * 2**m)
    assert (base.min(), base.max()) == oracle.code_range(n, signed)
    assert set(residual.ravel()) == set(range(2**m))
    np.testing.assert_array_equal(
        to_numpy(quantizers.merge(base, residual, mask, m)), q
    )


@pytest.mark.parametrize(
    "function", [quantizers.encode, quantizers.encode_straight_through]
)
def test_ties_round_to_even(function):
    x = [[-3.5], [-2.5], [-1.5], [-0.5], [0.5], [1.5], [2.5], [3.5]]
    q = encode(x, [1.0], [False], 8, 0, True, function)
    assert to_numpy(q).ravel().tolist() == [-4, -2, -2, 0, 0, 2, 2, 4]


@pytest.mark.parametrize(
    "function", [quantizers.encode, quantizers.encode_straight_through]
)
def test_codes_saturate_at_both_ends(function):
    x = [[-1e30, -1e30], [1e30, 1e30]]
    signed = to_numpy(encode(x, [0.5, 2.0], [True, False], 3, 2, True, function))
    assert signed.tolist() == [[-16, -4], [15, 3]]
    unsigned = to_numpy(encode(x, [0.5, 2.0], [True, False], 3, 2, False, function))
    assert unsigned.tolist() == [[0, 0], [31, 7]]


@pytest.mark.parametrize(("n", "m"), [(2, 1), (4, 2), (3, 4), (7, 0)])
def test_codes_with_a_zero_point(n, m):
    scale, mask = [0.5, 2.0], [True, False]
    for z in range(1, 2 ** (n - 1)):
        q_min, q_max = quantizers.code_range(n, m, np.asarray(mask), z / 2**n)
        assert to_numpy(q_min).tolist() == [-z * 2**m, -z]
        assert to_numpy(q_max).tolist() == [(2**n - z) * 2**m - 1, 2**n - z - 1]
        x = np.float32([[-1e9, -1e9], [0, 0], [1e9, 1e9]])
        q = quantizers.encode(x, 1 / np.float32(scale), q_min, q_max)
        base, residual = quantizers.split(q, np.asarray(mask), m)
        assert to_numpy(base).tolist() == [[-z, -z], [0, 0], [2**n - z - 1] * 2]
        assert to_numpy(q)[1].tolist() == [0, 0]
        merged = quantizers.merge(base, residual, np.asarray(mask), m)
        assert to_numpy(merged).tolist() == to_numpy(q).astype(int).tolist()


def test_one_signed_bit_is_minus_one_or_zero():
    q = to_numpy(encode([[-9.0], [0.2], [9.0]], [1.0], [False], 1, 0, True))
    assert q.ravel().tolist() == [-1, 0, 0]


@given(
    npst.arrays(
        np.float32,
        16,
        elements=st.floats(
            -(2.0**22) + 1, 2.0**22 - 1, width=32, allow_subnormal=False
        ),
    )
)
def test_straight_through_rounding_is_exact_below_two_to_the_22(v):
    # A range so wide that nothing saturates; halves up to 2^22 are float32 numbers.
    v = np.concatenate([v, np.floor(v) + np.float32(0.5)])
    one, limit = np.float32([1]), np.float32([2.0**23])
    q = quantizers.encode_straight_through(v[:, None], one, -limit, limit)
    np.testing.assert_array_equal(to_numpy(q).ravel(), np.rint(v))


def test_gradient_is_one_over_scale_inside_the_range_and_zero_outside():
    x = tf.constant([[-0.3], [0.0], [0.6], [3.7], [3.8], [100.0], [-100.0]])
    q_min, q_max = quantizers.code_range(4, 0, np.array([False]), False)
    with tf.GradientTape() as tape:
        tape.watch(x)
        q = quantizers.encode_straight_through(x, np.float32([4]), q_min, q_max)
    gradient = to_numpy(tape.gradient(q, x)).ravel()
    assert gradient.tolist() == [0, 4, 4, 4, 0, 0, 0]


def test_gradient_through_encode_and_decode_is_one_inside_the_range():
    x = tf.constant([[0.11, 5.0], [0.49, -7.9]])
    scale = np.float32([0.1, 1.0])
    q_min, q_max = quantizers.code_range(4, 0, np.array([False, False]), True)
    with tf.GradientTape() as tape:
        tape.watch(x)
        q = quantizers.encode_straight_through(x, 1 / scale, q_min, q_max)
        y = quantizers.decode(q, scale)
    np.testing.assert_allclose(to_numpy(tape.gradient(y, x)), 1.0, rtol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_code_range_takes_a_tensor_for_signedness(signed):
    mask = np.array([True, False])
    low, high = quantizers.code_range(3, 2, mask, keras.ops.convert_to_tensor(signed))
    expected = [oracle.code_range(5, signed), oracle.code_range(3, signed)]
    pairs = np.stack([to_numpy(low), to_numpy(high)], 1)
    np.testing.assert_array_equal(pairs, expected)
    assert pairs.dtype == np.float32
