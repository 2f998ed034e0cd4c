"""How an activation's values lie on the grid of its codes.

Channels have ranges of their own, so values are shown as shares of the largest value
that the codes of their channel reach: 1 is where clipping starts, in every channel.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.calibration.observers import Observer
from dqa_keras.calibration.ranges import BIN_CENTRES, largest_code
from dqa_keras.codec.layer_table import LayerTable

# Bins of a picture, up to 1 and beyond it.
_BINS = 60
_BEYOND = 1.2


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Values of one activation, as shares of the largest value of its codes.

    Args:
        edges: Float64 array (B + 1,). Borders of the bins; the outer bins also hold
            what lies beyond them.
        shares: Dictionary from bits of a code, n or n + m, to a float64 array (B,):
            the share of the values of those channels in each bin.
        grids: The same keys, to the values that codes stand for.
        zeros: Float. Share of all values that are stored as code 0.
        clipped: Float. Share of all values outside the range of their codes.
    """

    edges: NDArray[np.float64]
    shares: Mapping[int, NDArray[np.float64]]
    grids: Mapping[int, NDArray[np.float64]]
    zeros: float
    clipped: float


def histogram(table: LayerTable, observer: Observer) -> Histogram:
    """The histogram of one activation with the grid of its codes.

    Args:
        table: `LayerTable` of a calibrated layer (`layer.table()`).
        observer: `Observer` of the values in front of that layer.

    Returns:
        A `Histogram`.
    """
    lowest = -_BEYOND if table.signed else 0.0
    edges = np.linspace(lowest, _BEYOND, _BINS + 1)
    shares, grids = {}, {}
    zeros = clipped = total = 0.0
    for important in (False, True):
        rows = table.mask == important
        if not rows.any():
            continue
        bits = table.bits + important * table.extra_bits
        largest = largest_code(bits, table.signed)
        smallest, _ = quantizers.code_limits(bits, table.signed)
        counts = np.zeros(_BINS)
        for side, sign in observer.sides():
            centres = BIN_CENTRES * observer.width[rows, None]
            codes = sign * centres / table.scale[rows, None]
            amounts = side[rows].astype(np.float64)
            where = np.clip(codes / largest, edges[0], edges[-1])
            counts += np.histogram(where, edges, weights=amounts)[0]
            zeros += float(amounts[np.abs(codes) < 0.5].sum())
            outside = (codes > largest + 0.5) | (codes < smallest - 0.5)
            clipped += float(amounts[outside].sum())
        total += counts.sum()
        shares[bits] = counts / max(counts.sum(), 1.0)
        grids[bits] = np.arange(smallest, 2**bits + smallest) / largest
    total = max(total, 1.0)
    return Histogram(edges, shares, grids, zeros / total, clipped / total)
