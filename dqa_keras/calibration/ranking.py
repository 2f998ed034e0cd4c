"""Which channels matter: a score a channel, higher is more important.

`mse_scores` come from statistics alone; weighted by the sensitivities of
`dqa_keras.calibration.sensitivity` they are the rankings `"fisher"` and `"output"`. The
paper's `greedy_scores` try every channel against the model's own output.
"""

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.calibration.observers import Observer
from dqa_keras.calibration.ranges import squared_error
from dqa_keras.layers import Quantizer
from dqa_keras.quantizers import Signed


def mse_scores(
    observer: Observer,
    scales: tuple[NDArray[np.float32], NDArray[np.float32]],
    bits: int,
    extra_bits: int,
    signed: Signed,
) -> NDArray[np.float64]:
    """Squared error that the extra bits remove from each channel.

    Args:
        observer: `Observer` of C channels.
        scales: Two float32 arrays (C,): the scale at n and at n + m bits.
        bits: Integer. Stored bits n.
        extra_bits: Integer. Extra bits m.
        signed: Boolean, or the share of the codes that lie below 0.

    Returns:
        Float64 array (C,).
    """
    coarse = squared_error(observer, scales[0], bits, signed)
    return coarse - squared_error(observer, scales[1], bits + extra_bits, signed)


def greedy_scores(
    errors: Callable[[NDArray[np.bool_]], NDArray[np.float64]], channels: int
) -> NDArray[np.float64]:
    """The paper's ranking: each channel's extra bits tried against the output.

    One layer alone is quantized, all its channels at n + m bits. Then a channel loses
    its extra bits. Its score is how much that moves the model's output further from the
    unquantized one: the growth of the squared difference (arXiv 2412.09687, section
    3.1).

    Args:
        errors: Function of boolean masks (C + 1, C) that gives the squared difference
            under each, (C + 1,); see `dqa_keras.calibration.trials`.
        channels: Integer. C.

    Returns:
        Float64 array (C,).
    """
    whole, *without = errors(~np.eye(channels + 1, channels, -1, dtype=bool))
    return np.array(without) - whole


def trial_count(layers: list[Quantizer]) -> int:
    """Masks that `greedy_scores` tries for these layers."""
    return sum(1 + keras.ops.shape(layer.scale)[0] for layer in layers)
