"""From statistics to ranges: which magnitude the largest code stands for.

Everything here works on an `Observer`'s histograms, so no second look at the data is
needed. A *threshold* is the value that the largest code decodes to; the scale follows
from it.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dqa_keras.calibration.observers import BINS, Histogram, Observer
from dqa_keras.config import Clipping, Granularity

# Candidate thresholds of the MSE search, in bins: an octave below the smallest possible
# maximum (BINS / 2) loses more than it gains above 1 bit; four octaves cover 1 bit too.
_CANDIDATES = np.geomspace(BINS / 16, BINS, 97)

_CENTRES = np.arange(BINS) + 0.5


def largest_code(bits: int, signed: bool) -> int:
    """The positive code that a threshold maps to.

    One signed bit has codes -1 and 0 only; there the threshold maps to -1.
    """
    return 2**bits - 1 if not signed else max(2 ** (bits - 1) - 1, 1)


def _sides(observer: Observer) -> list[tuple[Histogram, int]]:
    """The histograms that hold something, each with its sign."""
    sides = [(observer.positive, 1)]
    if observer.negative is not None:
        sides.append((observer.negative, -1))
    return sides


def _limit(bits: int, signed: bool, sign: int) -> int:
    """Largest code magnitude on one side of zero."""
    if sign > 0:
        return 2 ** (bits - signed) - 1
    return 2 ** (bits - 1) if signed else 0


@functools.lru_cache(maxsize=64)
def _candidate_errors(bits: int, signed: bool, sign: int) -> NDArray[np.float64]:
    """Squared error, in bins, of each bin under each candidate: (BINS, candidates)."""
    scale = _CANDIDATES / largest_code(bits, signed)
    codes = np.rint(_CENTRES[:, None] / scale)
    codes = np.minimum(codes, _limit(bits, signed, sign))
    return (_CENTRES[:, None] - codes * scale) ** 2


def thresholds(
    observer: Observer,
    bits: int,
    signed: bool,
    clipping: Clipping,
    granularity: Granularity,
    percentile: float,
) -> NDArray[np.float64]:
    """The magnitude that the largest code of `bits` bits stands for.

    Args:
        observer: `Observer` of C channels.
        bits: Integer in 1..8.
        signed: Boolean. Whether codes are signed.
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
        found = observer.magnitude.astype(np.float64)
    elif clipping == "percentile":
        total = np.sum([side.astype(np.int64) for side, _ in _sides(observer)], axis=0)
        below = np.cumsum(total, axis=1)
        enough = below >= below[:, -1:] * (percentile / 100)
        found = (np.argmax(enough, axis=1) + 1) * observer.width
        found = np.minimum(found, observer.magnitude)
    else:
        errors = sum(
            side.astype(np.float64) @ _candidate_errors(bits, signed, sign)
            for side, sign in _sides(observer)
        )
        best = _CANDIDATES[np.argmin(errors, axis=1)] * observer.width
        found = np.where(observer.magnitude > 0, best, 0)
    # float32 reciprocals of anything smaller overflow.
    found = np.where(found > 1e-30, found, 0)
    found[found == 0] = found.max() or 1.0
    return np.broadcast_to(found, (channels,)).copy()


class Binned(NamedTuple):
    """One side of a histogram and what its bins are stored as, each (C, BINS)."""

    counts: Histogram
    values: NDArray[np.float64]
    codes: NDArray[np.int64]
    errors: NDArray[np.float64]


def histogram_codes(
    observer: Observer,
    scale: NDArray[np.float32],
    bits: int,
    signed: bool,
    offset: NDArray[np.float32] | float = 0.0,
) -> Iterator[Binned]:
    """What each bin of a histogram is stored as.

    Args:
        observer: `Observer` of C channels.
        scale: Float32 array (C,).
        bits: Integer. Bits b_c of the codes.
        signed: Boolean. Whether codes are signed.
        offset: Float32 array (C,) that is added before quantization and subtracted
            after (the noise of NoisyQuant). Defaults to none.

    Yields:
        A `Binned` for each side of zero.
    """
    step = np.asarray(scale, np.float64)[:, None]
    shift = np.broadcast_to(offset, scale.shape)[:, None]
    low, high = -_limit(bits, signed, -1), _limit(bits, signed, 1)
    for counts, sign in _sides(observer):
        values = sign * _CENTRES * observer.width[:, None]
        codes = np.clip(np.rint((values + shift) / step), low, high)
        errors = values + shift - codes * step
        yield Binned(counts, values, codes.astype(np.int64), errors)
