r"""Bits, ranges and important channels of all layers, under one storage budget.

Every layer may take any n and m, every channel n or n + m bits and a range of its own.
A channel's loss is its sensitivity times its squared error on the histogram; its rate
is the length of its Huffman codewords. At a price $\lambda$ per bit, each layer takes
the choice of smallest $\Delta L + \lambda R$ (Shoham and Gersho, 1988). Codewords
follow from the channels' choices and the choices from the codewords, in turn. Bisection
finds the price at which all layers together take the budget.

A histogram of a few hundred images knows little of what it saw once or never. A channel
that answers to one kind of object lies near 0 in most of them, and would be clipped in
the first that shows one. So each channel counts as seen in one image more, with the
values of the whole layer; in at most `_PRIOR_POSITIONS` of its positions, as neighbours
say the same.

Reference:
    - [Efficient bit allocation for an arbitrary set of quantizers](
      https://doi.org/10.1109/29.90373)
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dqa_keras.calibration.observers import BINS, Observer
from dqa_keras.calibration.ranges import bin_codes, largest_code
from dqa_keras.codec import blocks, huffman, sizes
from dqa_keras.config import MAX_BITS, MAX_EXTRA_BITS
from dqa_keras.quantizers import Signed, negative_share

Split = tuple[int, int]

# Thresholds that may be tried, in bins, and those tried: around the one of the smallest
# error, from 0.7 to 2.7 times as large. A wider step saves bits where codes are coded.
_THRESHOLDS = np.geomspace(BINS / 32, 4 * BINS, 64)
_TRIED = np.arange(-3, 10)

# Positions that a channel counts as seen beyond those that it was seen at.
_PRIOR_POSITIONS = 100

_STEPS_AN_OCTAVE = 9  # of `_THRESHOLDS`
# Channels whose bins are narrower by more octaves than this have no range to lose.
_OCTAVES = 10

# Codeword lengths and choices settle each other; more rounds change next to nothing.
_ROUNDS = 2

_STEPS = 20
# After so many steps of the bisection only the best splits of each layer stay.
_WIDE_STEPS = 6
_KEPT_SPLITS = 5

# The share of the budget that may be left over.
_UNSPENT = 0.003

# Stream ends fill up to whole bytes: 3.5 bits on average.
_STREAM_BITS = 16 + 3.5


class Demand(NamedTuple):
    """The solver's input for one activation of C channels.

    Args:
        observer: `Observer`. Its histograms.
        signed: Boolean, or a dictionary from n to whether codes of n bits are signed
            or the share of them that lies below 0.
        sensitivity: Float64 array (C,). Loss of an input for each unit of a channel's
            mean squared error.
        strips: Tuple of integers. Pixels of each strip of one input.
        code_base: Boolean. Whether base codes are Huffman-coded too.
    """

    observer: Observer
    signed: bool | Mapping[int, Signed]
    sensitivity: NDArray[np.float64]
    strips: tuple[int, ...]
    code_base: bool

    def signed_at(self, split: Split) -> Signed:
        """Whether codes are signed, or the share below 0, at some n and m."""
        if isinstance(self.signed, bool):
            return self.signed
        signed = self.signed[split[0]]
        return signed if sum(split) < MAX_BITS else bool(signed)

    @property
    def channels(self) -> int:
        """C."""
        return self.sensitivity.size

    @property
    def activations(self) -> int:
        """Values of one input."""
        return sum(self.strips) * self.channels


class Choice(NamedTuple):
    """The solver's result for one activation of C channels.

    Args:
        bits: Integer. n.
        extra_bits: Integer. m.
        mask: Boolean array (C,). True for important channels.
        scale: Float32 array (C,). Step of each channel.
        loss: Float. Expected loss of one input.
        expected_bits: Float. Bits of one input, table included.
    """

    bits: int
    extra_bits: int
    mask: NDArray[np.bool_]
    scale: NDArray[np.float32]
    loss: float
    expected_bits: float


def strips_of(shape: tuple[int, ...], activations: int) -> tuple[int, ...]:
    """Pixels in each strip of an activation of this shape.

    Args:
        shape: Tuple of integers, without the batch axis; 0 where a size is not known.
        activations: Integer. Values of one input.

    Returns:
        Tuple of integers.
    """
    pixels = activations // shape[-1]
    rows = shape[0] if min(shape) > 0 and len(shape) > 1 else 1
    height = sizes.default_strip_rows(rows, activations // rows)
    whole, rest = divmod(rows, height)
    return (pixels * height // rows,) * whole + (
        (pixels * rest // rows,) if rest else ()
    )


def _overhead(count: int) -> float:
    """Bits of a section of blocks without its codewords."""
    parts = [blocks.BLOCK_SYMBOLS] * (count // blocks.BLOCK_SYMBOLS)
    parts += [count % blocks.BLOCK_SYMBOLS] if count % blocks.BLOCK_SYMBOLS else []
    return sum(_STREAM_BITS * len(blocks.stream_counts(size)) for size in parts)


def section_bits(
    strips: Sequence[int], channels: int, width: int, coded: float
) -> float:
    """Bits of one input's symbols of `channels` channels, stored as blocks.

    Args:
        strips: Sequence of integers. Pixels of each strip.
        channels: Integer. Channels that have a symbol at each pixel.
        width: Integer. Bits of a symbol.
        coded: Float. Bits of all codewords.

    Returns:
        Float: the bits of the blocks, coded or raw, whichever is less.
    """
    counts = [pixels * channels for pixels in strips]
    raw = sum(8 * blocks.blocks_bound(count, width) for count in counts)
    return min(coded + sum(map(_overhead, counts)), raw)


@functools.lru_cache(maxsize=32)
def _bin_ranges(
    bits: int, signed: Signed, sign: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """`bin_codes` of one side of zero under `_THRESHOLDS`, as ranges of bins.

    Returns:
        The squared error of each bin, (BINS, T); the first bin of each absolute code,
        (T, limit + 2); the largest absolute code.
    """
    codes = bin_codes(_THRESHOLDS, bits, signed, sign)
    every = np.arange(codes.limit + 2)
    begins = np.stack([np.searchsorted(column, every) for column in codes.magnitudes.T])
    begins[:, -1] = BINS
    return codes.errors.astype(np.float32), begins, codes.limit


@functools.lru_cache(maxsize=32)
def _errors_below(bits: int, signed: Signed, sign: int) -> NDArray[np.float32]:
    """Squared error of each bin, (BINS, T'), from `_OCTAVES` below `_THRESHOLDS` on."""
    steps = np.arange(-_OCTAVES * _STEPS_AN_OCTAVE, _THRESHOLDS.size)
    thresholds = _THRESHOLDS[0] * 2.0 ** (steps / _STEPS_AN_OCTAVE)
    return bin_codes(thresholds, bits, signed, sign).errors.astype(np.float32)


def _shares(observer: Observer) -> list[tuple[NDArray[np.float64], int]]:
    """What part of its values each channel has in each bin, on each side of zero."""
    sides = observer.sides()
    total = sum(side.sum(1, dtype=np.float64) for side, _ in sides)
    return [(side / np.maximum(total, 1)[:, None], sign) for side, sign in sides]


class _Coded(NamedTuple):
    """One activation at some bits b under each threshold tried.

    Args:
        loss: Float array (C, T).
        counts: Float32 array (C, T, 2^b). Of one input, indexed by `q & (2^b - 1)`.
        scale: Float32 array (C, T).
    """

    loss: NDArray[np.floating]
    counts: NDArray[np.float32]
    scale: NDArray[np.float32]


class _Layer:
    """The operating points of one activation."""

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.splits: list[Split] = []
        self._pixels = demand.activations / demand.channels
        observer, pooled = demand.observer, demand.observer.pooled()
        self._share, self._pooled = _shares(observer), _shares(pooled)
        # Channels that were always 0 have no width to speak of.
        alive = observer.magnitude > 1e-30
        self._width = np.where(alive, observer.width, pooled.width)
        self._alive = bool(alive.any())
        self._octaves = np.log2(pooled.width / self._width).astype(np.int64)
        prior = min(_PRIOR_POSITIONS, self._pixels)
        self._prior = prior / (prior + observer.values / demand.channels)
        self._coded: dict[tuple[int, float], _Coded] = {}
        self._lengths: dict[Split, tuple[NDArray, NDArray]] = {}

    def _at(self, bits: int, signed: Signed) -> _Coded:
        key = bits, negative_share(signed)
        if key not in self._coded:
            self._coded[key] = self._code(bits, signed)
        return self._coded[key]

    def _code(self, bits: int, signed: Signed) -> _Coded:
        demand = self.demand
        channels = np.arange(demand.channels)
        error = np.zeros((channels.size, _THRESHOLDS.size))
        for share, sign in self._share:
            error += share @ _bin_ranges(bits, signed, sign)[0]
        error += self._prior * (self._layer_error(bits, signed) - error)
        best = np.argmin(error, 1)
        tried = np.clip(best[:, None] + _TRIED, 0, _THRESHOLDS.size - 1)
        counts = np.zeros((*tried.shape, 2**bits), np.float32)
        for share, sign in self._share:
            _, begins, limit = _bin_ranges(bits, signed, sign)
            below = np.pad(np.cumsum(share, 1), ((0, 0), (1, 0))) * self._pixels
            each = np.diff(below[channels[:, None, None], begins[tried]], axis=2)
            counts[..., sign * np.arange(limit + 1) & (2**bits - 1)] += each
        width = self._width[:, None]
        loss = np.take_along_axis(error, tried, 1) * width**2
        scale = _THRESHOLDS[tried] * width / largest_code(bits, signed)
        if not self._alive:
            scale = np.ones_like(scale)
        return _Coded(loss * demand.sensitivity[:, None], counts, scale.astype("f4"))

    def _layer_error(self, bits: int, signed: Signed) -> NDArray[np.floating]:
        """Mean squared error of the whole layer's values in each channel's range.

        Returns:
            Float array (C, T), in squared bins of the channel.
        """
        error = sum(
            (share @ _errors_below(bits, signed, sign))[0]
            for share, sign in self._pooled
        )
        first = _STEPS_AN_OCTAVE * (_OCTAVES - np.minimum(self._octaves, _OCTAVES))
        steps = first[:, None] + np.arange(_THRESHOLDS.size)
        return error[steps] * 4.0 ** self._octaves[:, None]

    def choose(self, split: Split, price: float) -> Choice:
        """The choice of smallest loss + price * bits at these n and m."""
        bits, extra_bits = split
        demand, signed = self.demand, self.demand.signed_at(split)
        high, low = self._at(sum(split), signed), self._at(bits, signed)
        every = np.arange(demand.channels)
        code = np.arange(2 ** (bits + extra_bits))
        base, residual = code >> extra_bits, code & (2**extra_bits - 1)
        base_lengths, residual_lengths = self._lengths.get(split) or self._first(split)
        for _ in range(_ROUNDS):
            lengths = (base_lengths[base] + residual_lengths[residual]).astype("f4")
            cost = high.loss + price * (high.counts @ lengths)
            taken = np.argmin(cost, 1)
            mask = np.full(demand.channels, bool(extra_bits))
            plain = taken
            if extra_bits:
                plain_cost = low.loss + price * (low.counts @ base_lengths.astype("f4"))
                plain = np.argmin(plain_cost, 1)
                mask = cost[every, taken] < plain_cost[every, plain]
            fine = high.counts[every, taken][mask].sum(0)
            coarse = low.counts[every, plain][~mask].sum(0)
            base_counts = np.bincount(base, fine, 2**bits) + coarse
            residual_counts = np.bincount(residual, fine, 2**extra_bits)
            if demand.code_base:
                base_lengths = huffman.estimated_lengths(base_counts)
            residual_lengths = huffman.estimated_lengths(residual_counts)
        self._lengths[split] = base_lengths, residual_lengths
        loss = high.loss[every, taken][mask].sum() + low.loss[every, plain][~mask].sum()
        return Choice(
            bits,
            extra_bits,
            mask,
            np.where(mask, high.scale[every, taken], low.scale[every, plain]),
            float(loss),
            expected_bits(
                demand,
                split,
                int(mask.sum()),
                float(base_counts @ base_lengths),
                float(residual_counts @ residual_lengths),
            ),
        )

    def _first(self, split: Split) -> tuple[NDArray, NDArray]:
        """Codeword lengths to begin with: all channels important."""
        bits, extra_bits = split
        coded = self._at(sum(split), self.demand.signed_at(split))
        counts = coded.counts[:, -_TRIED[0]].sum(0)
        code = np.arange(counts.size)
        base_lengths = np.full(2**bits, float(bits))
        if self.demand.code_base:
            base_lengths = huffman.estimated_lengths(
                np.bincount(code >> extra_bits, counts)
            )
        residual_counts = np.bincount(code & (2**extra_bits - 1), counts)
        return base_lengths, huffman.estimated_lengths(residual_counts)

    def best(self, price: float, keep: int | None) -> Choice:
        """The best of the splits; only `keep` of them are looked at again."""
        choices = {split: self.choose(split, price) for split in self.splits}
        ranked = sorted(
            choices,
            key=lambda split: (
                choices[split].loss + price * choices[split].expected_bits
            ),
        )
        if keep is not None:
            self.splits = ranked[:keep]
        return choices[ranked[0]]


def expected_bits(
    demand: Demand, split: Split, important: int, base: float, residual: float
) -> float:
    """Bits that one input's activation is expected to take, table included.

    Args:
        demand: `Demand`.
        split: Tuple of integers: n and m.
        important: Integer. Important channels.
        base: Float. Bits of all base codewords, if base codes are coded.
        residual: Float. Bits of all residual codewords.

    Returns:
        Float.
    """
    bits, extra_bits = split
    total = float(bits * demand.activations)
    if demand.code_base:
        total = section_bits(demand.strips, demand.channels, bits, base)
        total += 8 * 2**bits
    if extra_bits:
        total += section_bits(demand.strips, important, extra_bits, residual)
        total += demand.channels + 8 * 2**extra_bits
    return total


def solve(demands: Sequence[Demand], total: float) -> list[Choice]:
    """The choices of least loss that take at most `total` bits an input.

    Args:
        demands: Sequence of `Demand`.
        total: Float. Bits that one input may take in all.

    Returns:
        A `Choice` for each demand.

    Raises:
        ValueError: If no choice takes as few bits.
    """
    layers = [_Layer(demand) for demand in demands]
    activations = sum(demand.activations for demand in demands)
    # Wider codes than this gain nothing at such a budget and take most of the time.
    widest = min(MAX_BITS, int(total / activations) + 4)
    for layer in layers:
        layer.splits = [
            (bits, extra)
            for bits in range(1, widest + 1)
            for extra in range(min(MAX_EXTRA_BITS, widest - bits) + 1)
        ]

    def at(price: float, keep: int | None) -> list[Choice]:
        return [layer.best(price, keep) for layer in layers]

    # Prices are powers of two around the loss of a bit at 2 bits.
    unit = sum(layer.choose((2, 0), 0.0).loss for layer in layers) / activations
    unit = unit or 1.0
    cheap, dear = -24.0, 8.0
    under = at(unit * 2.0**40, None)
    if _total_bits(under) > total:
        raise ValueError(
            "the budget must be at least "
            f"{_total_bits(under) / activations:.3f} bits per activation "
            f"({_total_bits(under) / 8192:.2f} KiB) for these layers. Received: "
            f"{total / activations:.3f} ({total / 8192:.2f} KiB)"
        )
    for step in range(_STEPS):
        middle = (cheap + dear) / 2
        choices = at(unit * 2.0**middle, _KEPT_SPLITS if step == _WIDE_STEPS else None)
        if _total_bits(choices) > total:
            cheap = middle
        else:
            dear, under = middle, choices
    return _filled(layers, under, unit * 2.0**dear, total)


def _total_bits(choices: Sequence[Choice]) -> float:
    return sum(choice.expected_bits for choice in choices)


def _filled(
    layers: list[_Layer], chosen: list[Choice], price: float, total: float
) -> list[Choice]:
    """Spends bits that the price leaves over: with few layers its steps are large."""
    prices = [price * 2.0**octave for octave in (-4, -2, -1, 0, 1, 2)]
    points: list[list[Choice]] = []
    while total - _total_bits(chosen) > _UNSPENT * total:
        points = points or [
            [layer.choose(split, price) for split in layer.splits for price in prices]
            for layer in layers
        ]
        spare = total - _total_bits(chosen)
        better = [
            (chosen[index].loss - point.loss, index, point)
            for index, own_points in enumerate(points)
            for point in own_points
            if point.loss < chosen[index].loss
            and 0 < point.expected_bits - chosen[index].expected_bits <= spare
        ]
        if not better:
            break
        _, index, point = max(better, key=lambda entry: entry[0])
        chosen = [*chosen[:index], point, *chosen[index + 1 :]]
    return chosen
