"""3x3 convolutions with 16 multiplications for four outputs instead of 36.

Winograd's F(2x2, 3x3) (Lavin and Gray, 2016, arXiv 1509.09308, section 4.1): outputs
come in tiles of 2x2, each from 4x4 inputs d, with weights g of a pair of channels:

    V = B' d B      U = G g G'      Y = A' (sum of U * V over the input channels) A

V holds sums and differences of four codes: of codes up to 63 they fit bytes. U is what
is rounded, one scale for an output channel, so all that follows is exact integers.
"""

import numpy as np
from numpy.typing import NDArray

from dqa_keras.export.plan.arena import align
from dqa_keras.export.plan.ops import OpCode, Window

# Sums of four larger codes would not fit bytes.
PEAK = 63
# 9 sums of products of 8 bits, one of them of doubled codes, must fit 32 bits.
CHANNELS = (2**31 - 1) // (127 * (9 + 1) * 2 * PEAK)

TILE = OpCode.WINOGRAD.rule.tile  # outputs of a tile, down and sideways
TAPS = 4  # inputs of a tile, and products

_WEIGHTS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_INPUTS = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_OUTPUTS = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])

# What the parts of a tile cost, in dot products of 64 bytes: transforming 64 inputs,
# and 16 outputs with the store and load of their sums. Fitted to times with AVX-512.
_INPUT_COST, _OUTPUT_COST = 80.0, 90.0

# Bytes of inputs of tiles that are computed together, and of a line of a cache.
_ROOM, _LINE = 32768, 64


def fits(window: Window, peak: int, inputs: int) -> bool:
    """Whether a convolution of codes up to `peak` can be computed in tiles."""
    steps = (*window.stride, *window.dilation)
    return (
        (window.height, window.width) == (3, 3)
        and max(steps) == 1
        and peak <= PEAK
        and inputs <= CHANNELS
    )


def pays(inputs: int, output: tuple[int, int, int], largest: int) -> bool:
    """Whether tiles cost less than what they save.

    Args:
        inputs: Integer. Input channels.
        output: Height, width and channels of the output.
        largest: Integer. Values of the largest tensor around; tiles may take an eighth
            as many bytes.
    """
    height, width, outputs = output
    groups, blocks = -(-inputs // 4), -(-outputs // 16)
    direct = 9 * height * width * groups * blocks
    tiles = -(-height // TILE) * -(-width // TILE)
    products = TAPS * TAPS * groups * blocks
    moved = _INPUT_COST * -(-inputs // 64) + _OUTPUT_COST * blocks
    return tiles * (products + moved) < direct and 8 * room(inputs, output) <= largest


def room(inputs: int, output: tuple[int, int, int]) -> int:
    """Bytes for the tiles that the runtime computes together: see its winograd.h."""
    pixel = -(-inputs // 4) * 4
    fit = _ROOM // (TAPS * TAPS * pixel) // 8 * 8
    tiles = max(min(fit, 32), 8)
    tiles = min(tiles, -(-output[0] // TILE) * -(-output[1] // TILE))
    codes = align(TAPS * TAPS * (tiles * pixel + _LINE))
    return codes + TAPS * TAPS * (tiles * 16 * 4 + _LINE) + _LINE


def weights_of(kernel: NDArray) -> NDArray[np.float64]:
    """U of kernels (O, 3, 3, I): (O, 4, 4, I)."""
    return np.einsum("ua,oabi,vb->ouvi", _WEIGHTS, kernel, _WEIGHTS)


def convolved(
    codes: NDArray[np.int64],
    weights: NDArray[np.int64],
    window: Window,
    size: tuple[int, int],
) -> NDArray[np.int64]:
    """The exact sums of a convolution in tiles.

    Args:
        codes: Integer array (H, W, I), 0 for what lies outside.
        weights: Integer array (4, 4, I, O), rounded U.
        window: `Window`.
        size: Height and width of the output.

    Returns:
        Integer array (height, width, O).
    """
    tiles = tuple(-(-side // TILE) for side in size)
    sides = [TILE * count + TAPS - TILE for count in tiles]
    around = np.zeros((*sides, codes.shape[2]))
    seen = codes[: sides[0] - window.top, : sides[1] - window.left]
    around[window.top :, window.left :][: seen.shape[0], : seen.shape[1]] = seen
    parts = np.stack(
        [
            [
                around[y : y + TILE * tiles[0] : TILE, x : x + TILE * tiles[1] : TILE]
                for x in range(TAPS)
            ]
            for y in range(TAPS)
        ]
    )
    moved = np.einsum("ua,abyxi,vb->uvyxi", _INPUTS, parts, _INPUTS, optimize=True)
    # Whole numbers far below 2^53: exact.
    sums = np.stack(
        [[moved[u, v] @ weights[u, v] for v in range(TAPS)] for u in range(TAPS)]
    )
    out = np.einsum("iu,uvyxo,jv->yixjo", _OUTPUTS, sums, _OUTPUTS, optimize=True)
    flat = out.reshape(TILE * tiles[0], TILE * tiles[1], -1)
    return np.rint(flat[: size[0], : size[1]]).astype(np.int64)
