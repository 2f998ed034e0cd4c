import numpy as np
import oracle
import pytest

from dqa_keras.calibration import ranges
from dqa_keras.calibration.observers import BINS, Observer
from dqa_keras.config import DQAConfig


def observer_of(samples):
    observer = Observer(samples.shape[1])
    observer.update(samples, samples.min(0), samples.max(0))
    return observer


def thresholds(samples, bits, signed, clipping, granularity="channel", percentile=99.0):
    observer = observer_of(np.asarray(samples, np.float32))
    return ranges.thresholds(observer, bits, signed, clipping, granularity, percentile)


@pytest.fixture(scope="module")
def samples():
    """Channels of different size and shape: (5000, 3), with both signs."""
    random = np.random.default_rng(1)
    return np.stack(
        [
            random.normal(size=5000),
            30 * random.laplace(size=5000),
            random.uniform(-0.01, 0.02, size=5000),
        ],
        1,
    ).astype(np.float32)


def choice(x, **options):
    config = DQAConfig(**{"bits": 4, "extra_bits": 2, **options})
    x = np.asarray(x, np.float32)
    return ranges.signedness(observer_of(x), config.bits, config.extra_bits, config)


@pytest.mark.parametrize("clipping", ["mse", "max"])
def test_a_short_negative_tail_gets_a_zero_point(samples, clipping):
    tailed = np.maximum(samples, 0.1 * samples)
    share = choice(tailed, clipping=clipping)
    assert 16 * share in (1, 2, 3)
    assert choice(samples[:, :2], clipping=clipping) is True
    assert choice(np.abs(tailed), clipping=clipping) is False
    assert choice(tailed, clipping=clipping, signed=True) is True
    assert choice(tailed, clipping="percentile") is True
    assert choice(tailed, clipping=clipping, bits=6) is True
    assert choice(tailed, clipping=clipping, bits=1) is True


def test_max_with_a_zero_point_clips_nothing(samples):
    tailed = np.float32(np.maximum(samples, 0.3 * samples))
    config = DQAConfig(clipping="max")
    observer = observer_of(tailed)
    for share in (1 / 16, 3 / 16, 7 / 16):
        scale = ranges.scales(observer, 4, share, config)
        q = np.rint(tailed / scale)
        assert q.min() >= -16 * share
        assert q.max() <= 15 - 16 * share


def mean_squared_error(x, threshold, bits, signed):
    scale = np.float32(threshold / ranges.largest_code(bits, signed))
    x_hat = oracle.quantized(x[:, None], [scale], [False], bits, 0, signed)
    return np.mean((x.astype(np.float64) - x_hat[:, 0]) ** 2)


@pytest.mark.parametrize(
    ("bits", "signed", "code"),
    [(8, False, 255), (8, True, 127), (2, True, 1), (1, False, 1), (1, True, 1)],
)
def test_largest_code(bits, signed, code):
    assert ranges.largest_code(bits, signed) == code


def test_max_is_the_largest_magnitude_of_each_channel(samples):
    expected = np.abs(samples).max(0)
    np.testing.assert_array_equal(thresholds(samples, 4, True, "max"), expected)


def test_max_of_a_tensor_is_shared_by_its_channels(samples):
    limits = thresholds(samples, 4, True, "max", "tensor")
    assert limits.tolist() == [np.abs(samples).max()] * 3


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.97, 100.0])
def test_percentile_is_within_a_bin_of_the_sorted_samples(samples, percentile):
    limits = thresholds(samples, 4, True, "percentile", percentile=percentile)
    magnitudes = np.sort(np.abs(samples), 0)
    rank = int(np.ceil(len(samples) * percentile / 100)) - 1
    width = observer_of(samples).width
    assert np.all(limits >= magnitudes[rank])
    assert np.all(limits <= magnitudes[rank] + width)


def test_percentile_never_exceeds_the_largest_magnitude(samples):
    limits = thresholds(samples, 4, True, "percentile", percentile=100.0)
    assert np.all(limits <= np.abs(samples).max(0))


def test_percentile_of_a_tensor_pools_the_channels(samples):
    limits = thresholds(samples, 4, True, "percentile", "tensor", 90.0)
    pooled = thresholds(samples.reshape(-1, 1), 4, True, "percentile", "channel", 90.0)
    assert limits.tolist() == pooled.tolist() * 3


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
def test_mse_threshold_is_as_good_as_brute_force(samples, bits, signed):
    x = samples if signed else np.abs(samples)
    limits = thresholds(x, bits, signed, "mse")
    for c in range(3):
        largest = np.abs(x[:, c]).max()
        candidates = np.linspace(largest / 64, largest, 400)
        best = min(mean_squared_error(x[:, c], t, bits, signed) for t in candidates)
        reached = mean_squared_error(x[:, c], limits[c], bits, signed)
        # The histogram's bins blur the error by about width^2 / 12.
        blur = (largest / (BINS / 2)) ** 2
        assert reached <= 1.03 * best + blur


@pytest.mark.parametrize("bits", [2, 4])
def test_mse_clips_outliers(bits):
    x = np.random.default_rng(0).normal(size=(4000, 1)).astype(np.float32)
    x[0] = 12
    assert thresholds(x, bits, True, "mse")[0] < 6


def test_mse_of_a_tensor_is_one_threshold_for_the_pooled_values(samples):
    limits = thresholds(samples, 4, True, "mse", "tensor")
    pooled = thresholds(samples.reshape(-1, 1), 4, True, "mse")
    assert limits.tolist() == pooled.tolist() * 3


@pytest.mark.parametrize("clipping", ["max", "mse", "percentile"])
def test_a_channel_of_zeros_takes_the_largest_threshold_of_the_others(clipping):
    x = np.abs(np.random.default_rng(0).normal(size=(500, 3)))
    x[:, 1] = 0
    x[:, 2] *= 5
    limits = thresholds(x, 4, False, clipping)
    assert limits[1] == limits[2] > limits[0]


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("clipping", ["max", "mse", "percentile"])
def test_nothing_but_zeros_takes_threshold_one(clipping, granularity):
    limits = thresholds(np.zeros((10, 2)), 4, False, clipping, granularity)
    assert limits.tolist() == [1, 1]


@pytest.mark.parametrize("clipping", ["max", "mse", "percentile"])
def test_thresholds_have_a_finite_float32_scale_and_reciprocal(clipping):
    x = np.float32([[1e-38, 1e-31, 1e-29, 1e30]])
    limits = thresholds(x, 8, False, clipping)
    scale = (limits / 255).astype(np.float32)
    assert np.all(scale > 0)
    assert np.all(np.isfinite(np.float32(1) / scale))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("offset", [0.0, 0.004])
def test_histogram_codes_are_the_codes_of_the_bin_centres(samples, signed, offset):
    x = samples if signed else np.abs(samples)
    observer = observer_of(x)
    scale = (np.abs(x).max(0) / 7).astype(np.float32)
    shift = (offset * scale).astype(np.float32)
    sides = list(ranges.histogram_codes(observer, scale, 4, signed, shift))
    assert len(sides) == 1 + signed
    low, high = oracle.code_range(4, signed)
    for side, sign in zip(sides, (1, -1), strict=False):
        for c in range(3):
            centres = sign * (np.arange(BINS) + 0.5) * observer.width[c]
            np.testing.assert_allclose(side.values[c], centres)
            q = np.clip(np.rint((centres + shift[c]) / float(scale[c])), low, high)
            np.testing.assert_array_equal(side.codes[c], q)
            error = centres - (q * float(scale[c]) - shift[c])
            np.testing.assert_allclose(side.errors[c], error, atol=1e-9)
    assert sum(int(side.counts.sum()) for side in sides) == x.size
