"""Streaming statistics of one activation, in memory that does not grow with the data.

An observer keeps, for each channel, a histogram of `BINS` bins whose width is a power
of two. When a larger value arrives the width doubles and bins are added up in pairs,
which is exact: the result does not depend on the order of the data, and observers of
disjoint parts of the data can be merged.

>>> import numpy as np
>>> from dqa_keras.calibration import observers
>>> observer = observers.Observer(channels=2)
>>> samples = np.float32([[0.0, 1.0], [3.0, 2.0]])
>>> observer.update(samples, samples.min(0), samples.max(0))
>>> observer.maximum.tolist(), int(observer.positive.sum())
([3.0, 2.0], 4)

Memory: 4 KiB a channel, twice that where negative values occur.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras.calibration import exact_sum

BINS = 1024
_BITS = 10  # BINS == 2 ** _BITS
_SMALLEST = -100  # exponent of channels that have been 0 so far


Histogram = NDArray[np.unsignedinteger]


def _folded(histogram: Histogram, shifts: NDArray[np.integer]) -> Histogram:
    """Adds up neighbouring bins, 2^shift of them in each channel."""
    for channel in np.flatnonzero(shifts):
        group = 1 << min(int(shifts[channel]), _BITS)
        folded = histogram[channel].reshape(-1, group).sum(1)
        histogram[channel, : folded.size] = folded
        histogram[channel, folded.size :] = 0
    return histogram


class Observer:
    """Range and histogram of an activation of C channels.

    Args:
        channels: Integer. C.

    Attributes:
        minimum: Float32 array (C,). Smallest value seen (0 if none was smaller).
        maximum: Float32 array (C,). Largest value seen (0 if none was larger).
        positive: Uint32 array (C, BINS). Histogram of values >= 0.
        negative: Uint32 array (C, BINS) of the magnitudes of values < 0, or None if
            there was none.
        sensitivity: Float64 array (C,). Squared gradients with respect to the values,
            summed over images and positions (see `dqa_keras.calibration.sensitivity`);
            0 where they were not asked for.
        values: Integer. Values that the activation had in all.
    """

    def __init__(self, channels: int) -> None:
        self.minimum = np.zeros(channels, np.float32)
        self.maximum = np.zeros(channels, np.float32)
        self.positive: Histogram = np.zeros((channels, BINS), np.uint32)
        self.negative: Histogram | None = None
        self.values = 0
        self._sensitivity = exact_sum.zeros(channels)
        self._exponent = np.full(channels, _SMALLEST, np.int32)

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """Float64 array (C,): squared gradients, summed without rounding."""
        return exact_sum.value(self._sensitivity)

    def add_gradients(self, squares: NDArray[np.floating]) -> None:
        """Adds squared gradients (C,), summed over some images, as float32."""
        self._sensitivity += exact_sum.limbs(squares.astype(np.float32))

    @property
    def width(self) -> NDArray[np.float64]:
        """Float64 array (C,): bin width of each channel."""
        return np.ldexp(1.0, self._exponent - _BITS)

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """Float32 array (C,): largest absolute value seen."""
        return np.maximum(self.maximum, -self.minimum)

    def sides(self) -> list[tuple[Histogram, int]]:
        """The histograms on each side of zero, with their signs."""
        positive = [(self.positive, 1)]
        return positive if self.negative is None else [*positive, (self.negative, -1)]

    def update(
        self,
        samples: NDArray[np.float32],
        minimum: NDArray[np.float32],
        maximum: NDArray[np.float32],
    ) -> None:
        """Adds a batch.

        Args:
            samples: Float32 array (M, C). Values for the histogram.
            minimum: Float32 array (C,). Smallest values of the whole batch, of which
                `samples` may be a part.
            maximum: Float32 array (C,). Largest values of the whole batch.
        """
        self.minimum = np.minimum(self.minimum, minimum)
        self.maximum = np.maximum(self.maximum, maximum)
        exponent = np.frexp(self.magnitude)[1]
        self._widen(np.where(self.magnitude >= 2.0**_SMALLEST, exponent, _SMALLEST))
        if self.negative is None and minimum.min() < 0:
            self.negative = np.zeros_like(self.positive)
        channels = samples.shape[1]
        # Bin numbers are exact: the factor is a power of two.
        bins = samples * np.ldexp(np.float32(1), _BITS - self._exponent)
        if self.negative is None:
            index = bins.astype(np.int64)
        else:
            index = np.abs(bins).astype(np.int64)
            index += np.where(samples < 0, channels * BINS, 0)
        index += np.arange(channels) * BINS
        sides = 1 if self.negative is None else 2
        flat = np.bincount(index.ravel(), minlength=sides * channels * BINS)
        counts = flat.astype(np.uint32).reshape(sides, channels, BINS)
        self.positive += counts[0]
        if self.negative is not None:
            self.negative += counts[1]

    def merge(self, other: "Observer") -> None:
        """Adds the statistics of another observer of the same layer."""
        self._sensitivity = self._sensitivity + other._sensitivity
        self.values += other.values
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self._widen(np.maximum(self._exponent, other._exponent))
        shifts = self._exponent - other._exponent
        self.positive += _folded(other.positive.copy(), shifts)
        if other.negative is not None:
            if self.negative is None:
                self.negative = np.zeros_like(self.positive)
            self.negative += _folded(other.negative.copy(), shifts)

    def arrays(self) -> dict[str, Any]:
        """The whole state as plain arrays by name, for `from_arrays`."""
        arrays: dict[str, Any] = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "values": np.int64(self.values),
            "sensitivity": self._sensitivity,
            "exponent": self._exponent,
            "positive": self.positive,
        }
        if self.negative is not None:
            arrays["negative"] = self.negative
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Observer":
        """The inverse of `arrays`."""
        observer = cls(arrays["minimum"].size)
        observer.minimum = arrays["minimum"]
        observer.maximum = arrays["maximum"]
        observer.positive = arrays["positive"]
        observer.negative = arrays.get("negative")
        observer.values = int(arrays["values"])
        observer._sensitivity = arrays["sensitivity"]
        observer._exponent = arrays["exponent"]
        return observer

    def pooled(self) -> "Observer":
        """An observer of all channels as one."""
        pooled = Observer(1)
        pooled.minimum = self.minimum.min(keepdims=True)
        pooled.maximum = self.maximum.max(keepdims=True)
        pooled._exponent = self._exponent.max(keepdims=True)
        shifts = pooled._exponent - self._exponent

        def summed(histogram: Histogram) -> Histogram:
            wide = _folded(histogram.astype(np.uint64), shifts)
            return wide.sum(0, keepdims=True)

        pooled.positive = summed(self.positive)
        if self.negative is not None:
            pooled.negative = summed(self.negative)
        return pooled

    def _widen(self, exponent: NDArray[np.int32]) -> None:
        shifts = exponent - self._exponent
        _folded(self.positive, shifts)
        if self.negative is not None:
            _folded(self.negative, shifts)
        self._exponent = np.asarray(exponent, np.int32)


def decibels(signal: float, noise: float) -> float:
    """Signal to noise in dB; at most 150, 0 where there is no signal."""
    return 10 * float(np.log10(signal / max(noise, 1e-15 * signal))) if signal else 0.0
