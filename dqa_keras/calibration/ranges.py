"""Ranges from statistics: which magnitude the largest code stands for.

Everything here works on an `Observer`'s histograms, not on the data. A *threshold* is
the value that the largest code decodes to; the scale follows from it.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.calibration.observers import BINS, Histogram, Observer
from dqa_keras.config import MAX_BITS, Clipping, DQAConfig, Granularity
from dqa_keras.quantizers import Signed

# Candidate thresholds of the MSE search, in bins: an octave below the smallest possible
# maximum (BINS / 2) loses more than it gains above 1 bit; four octaves cover 1 bit too.
_CANDIDATES = np.geomspace(BINS / 16, BINS, 97)

# Zero points that are tried, of all 2^n codes.
_SHARES = 16
# What is left of the squared error where a zero point is worth it.
_WORTH = 0.9

BIN_CENTRES = np.arange(BINS) + 0.5


def largest_code(bits: int, signed: Signed) -> int:
    """The positive code that a threshold maps to.

    One signed bit has codes -1 and 0 only; there the threshold maps to -1.
    """
    return max(quantizers.code_limits(bits, signed)[1], 1)


class BinCodes(NamedTuple):
    """The codes of the bins on one side of zero, under T thresholds.

    Args:
        magnitudes: Float64 array (BINS, T). Absolute code of each bin.
        errors: Float64 array (BINS, T). Squared error of each bin, in squared bins.
        limit: Integer. Largest absolute code.
    """

    magnitudes: NDArray[np.float64]
    errors: NDArray[np.float64]
    limit: int


def bin_codes(
    thresholds: NDArray[np.float64], bits: int, signed: Signed, sign: int
) -> BinCodes:
    """Codes of `bits` bits for each bin, under each threshold (T,) in bins.

    Args:
        thresholds: Float64 array (T,). In units of the bins' width.
        bits: Integer in 1..8.
        signed: Boolean, or the share of the codes that lie below 0.
        sign: Integer. `1` for the positive side of zero, `-1` for the negative one.

    Returns:
        A `BinCodes`.
    """
    scale = thresholds / largest_code(bits, signed)
    limit = abs(quantizers.code_limits(bits, signed)[sign > 0])
    magnitudes = np.minimum(np.rint(BIN_CENTRES[:, None] / scale), limit)
    errors = (BIN_CENTRES[:, None] - magnitudes * scale) ** 2
    return BinCodes(magnitudes, errors, limit)


@functools.lru_cache(maxsize=64)
def _candidate_errors(bits: int, signed: Signed, sign: int) -> NDArray[np.float64]:
    """Squared error, in bins, of each bin under each candidate: (BINS, candidates)."""
    return bin_codes(_CANDIDATES, bits, signed, sign).errors


def thresholds(
    observer: Observer,
    bits: int,
    signed: Signed,
    clipping: Clipping,
    granularity: Granularity,
    percentile: float,
) -> NDArray[np.float64]:
    """The magnitude that the largest code of `bits` bits stands for.

    Args:
        observer: `Observer` of C channels.
        bits: Integer in 1..8.
        signed: Boolean, or the share of the codes that lie below 0.
        clipping: `"max"`: the largest magnitude seen. `"percentile"`: the magnitude
            that `percentile` percent of the values stay under. `"mse"`: the candidate
            with the smallest mean squared error on the histogram.
        granularity: `"channel"`, or `"tensor"` for one threshold shared by all.
        percentile: Float in 50..100.

    Returns:
        Float64 array (C,), all positive. A channel that was always 0 gets the largest
        threshold of the others, or 1.
    """
    channels = observer.maximum.size
    if granularity == "tensor":
        observer = observer.pooled()
    if clipping == "max":
        low, high = quantizers.code_limits(bits, signed)
        # Symmetric codes reach as far below 0 as above it.
        reach = 1.0 if isinstance(signed, bool) else -high / low
        limits = np.maximum(observer.maximum, -reach * observer.minimum.astype("f8"))
    elif clipping == "percentile":
        total = np.sum([side.astype(np.int64) for side, _ in observer.sides()], axis=0)
        below = np.cumsum(total, axis=1)
        enough = below >= below[:, -1:] * (percentile / 100)
        limits = (np.argmax(enough, axis=1) + 1) * observer.width
        limits = np.minimum(limits, observer.magnitude)
    else:
        errors = sum(
            side.astype(np.float64) @ _candidate_errors(bits, signed, sign)
            for side, sign in observer.sides()
        )
        best = _CANDIDATES[np.argmin(errors, axis=1)] * observer.width
        limits = np.where(observer.magnitude > 0, best, 0)
    # float32 reciprocals of anything smaller overflow.
    limits = np.where(limits > 1e-30, limits, 0)
    limits[limits == 0] = limits.max() or 1.0
    return np.broadcast_to(limits, (channels,)).copy()


def scales(
    observer: Observer, bits: int, signed: Signed, config: DQAConfig
) -> NDArray[np.float32]:
    """The step of each channel for codes of `bits` bits, as a config clips: (C,)."""
    limits = thresholds(
        observer, bits, signed, config.clipping, config.granularity, config.percentile
    )
    return (limits / largest_code(bits, signed)).astype(np.float32)


def squared_error(
    observer: Observer, scale: NDArray[np.float32], bits: int, signed: Signed
) -> NDArray[np.float64]:
    """Summed squared quantization error of each channel on its histogram: (C,)."""
    error = np.zeros(scale.size)
    for binned in histogram_codes(observer, scale, bits, signed):
        error += np.einsum("cb,cb->c", binned.counts, binned.errors**2)
    return error


def signedness(
    observer: Observer, bits: int, extra_bits: int, config: DQAConfig
) -> Signed:
    """Whether codes are signed, or the share of them that lies below 0.

    Args:
        observer: `Observer` of C channels.
        bits: Integer in 1..8. Stored bits n, at which squared errors are compared.
        extra_bits: Integer. Extra bits m.
        config: `DQAConfig`. Its `signed` may leave the choice to the data.

    Returns:
        Boolean, or a float: a multiple of `2**-bits` between 0 and 0.5.
    """
    if config.signed != "auto":
        return config.signed
    if observer.minimum.min() >= 0:
        return False

    def error(signed: Signed) -> float:
        scale = scales(observer, bits, signed, config)
        return float(squared_error(observer, scale, bits, signed).sum())

    # Percentiles are of magnitudes, which know no side.
    if bits + extra_bits == MAX_BITS or config.clipping == "percentile":
        return True
    zero_points = range(1, 2 ** (bits - 1))[:: max(1, 2**bits // _SHARES)]
    errors = {z / 2**bits: error(z / 2**bits) for z in zero_points}
    best = min(errors, key=errors.__getitem__, default=0.0)
    return best if errors and errors[best] < _WORTH * error(True) else True


class Binned(NamedTuple):
    """One side of a histogram with the codes of its bins, each array (C, BINS)."""

    counts: Histogram
    values: NDArray[np.float64]
    codes: NDArray[np.int64]
    errors: NDArray[np.float64]


def histogram_codes(
    observer: Observer,
    scale: NDArray[np.float32],
    bits: int,
    signed: Signed,
    offset: NDArray[np.float32] | float = 0.0,
) -> Iterator[Binned]:
    """The code of each bin of a histogram.

    Args:
        observer: `Observer` of C channels.
        scale: Float32 array (C,).
        bits: Integer. Bits b_c of the codes.
        signed: Boolean, or the share of the codes that lie below 0.
        offset: Float32 array (C,) that is added before quantization and subtracted
            after (the noise of NoisyQuant). Defaults to none.

    Yields:
        A `Binned` for each side of zero.
    """
    step = np.asarray(scale, np.float64)[:, None]
    shift = np.broadcast_to(offset, scale.shape)[:, None]
    low, high = quantizers.code_limits(bits, signed)
    for counts, sign in observer.sides():
        values = sign * BIN_CENTRES * observer.width[:, None]
        codes = np.clip(np.rint((values + shift) / step), low, high)
        errors = values + shift - codes * step
        yield Binned(counts, values, codes.astype(np.int64), errors)
