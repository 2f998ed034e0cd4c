"""Which channels matter: a score a channel, higher is more important.

`mse_scores` come from statistics alone; weighted by the sensitivities of
`dqa_keras.sensitivity` they are the rankings `"fisher"` and `"output"`. The paper's
`greedy_scores` try every channel against the model's own output.
"""

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from dqa_keras.layers import Quantizer
from dqa_keras.observers import Observer
from dqa_keras.ranges import histogram_codes


def squared_error(
    observer: Observer, scale: NDArray[np.float32], bits: int, signed: bool
) -> NDArray[np.float64]:
    """Summed squared quantization error of each channel on its histogram: (C,)."""
    error = np.zeros(scale.size)
    for binned in histogram_codes(observer, scale, bits, signed):
        error += np.einsum("cb,cb->c", binned.counts, binned.errors**2)
    return error


def mse_scores(
    observer: Observer,
    scales: tuple[NDArray[np.float32], NDArray[np.float32]],
    bits: int,
    extra_bits: int,
    signed: bool,
) -> NDArray[np.float64]:
    """Squared error that the extra bits remove from each channel.

    Args:
        observer: `Observer` of C channels.
        scales: Two float32 arrays (C,): the scale at n and at n + m bits.
        bits: Integer. Stored bits n.
        extra_bits: Integer. Extra bits m.
        signed: Boolean. Whether codes are signed.

    Returns:
        Float64 array (C,).
    """
    coarse = squared_error(observer, scales[0], bits, signed)
    return coarse - squared_error(observer, scales[1], bits + extra_bits, signed)


def greedy_scores(
    layer: Quantizer,
    scales: tuple[NDArray[np.float32], NDArray[np.float32]],
    output_error: Callable[[], float],
    progress: Callable[[], None],
) -> NDArray[np.float64]:
    """The paper's ranking: each channel's extra bits tried against the output.

    With this layer alone quantized and all its channels at n + m bits, the score of a
    channel is how much the squared difference of the model's output from the
    unquantized output grows when that channel loses its extra bits (arXiv 2412.09687,
    section 3.1).

    Args:
        layer: `Quantizer` of C channels, quantizing; its scale and mask are changed.
        scales: Two float32 arrays (C,): the scale at n and at n + m bits.
        output_error: Function. Runs the model and gives the squared difference.
        progress: Function. Called once a trial; there are C + 1.

    Returns:
        Float64 array (C,).
    """

    def error_with(mask: NDArray[np.bool_]) -> float:
        scale = np.where(mask, scales[1], scales[0]).astype(np.float32)
        layer.mask.assign(mask)
        layer.scale.assign(scale)
        layer.inverse_scale.assign(np.float32(1) / scale)
        error = output_error()
        progress()
        return error

    channels = scales[0].size
    least = error_with(np.ones(channels, bool))
    return np.array([error_with(~row) - least for row in np.eye(channels, dtype=bool)])


def trial_count(layers: list[Quantizer]) -> int:
    """Forward passes that `greedy_scores` takes over these layers."""
    return sum(1 + keras.ops.shape(layer.scale)[0] for layer in layers)
