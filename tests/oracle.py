"""Plain NumPy versions of the formulas in DESIGN.md, to check the package against.

Written from the formulas and never from the code under test.
"""

import heapq

import numpy as np


def code_range(bits, signed):
    """q_min and q_max of codes of `bits` bits, signed or with a share below 0."""
    if 0 < signed < 1:
        below = int(signed * 2**bits)
        return -below, 2**bits - 1 - below
    if signed:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def codes(x, scale, mask, bits, extra_bits, signed):
    """q of every value, channel by channel, in float32."""
    x = np.asarray(x, np.float32)
    q = np.empty(x.shape, np.int64)
    for c in range(x.shape[-1]):
        low, high = code_range(bits + extra_bits * int(mask[c]), signed)
        inverse = np.float32(1) / np.float32(scale[c])
        product = x[..., c] * inverse
        assert product.dtype == np.float32
        q[..., c] = np.clip(np.rint(product), low, high)
    return q


def values(q, scale):
    """x^ = q * s in float32."""
    return q.astype(np.float32) * np.asarray(scale, np.float32)


def quantized(x, scale, mask, bits, extra_bits, signed):
    """x^ of every value."""
    return values(codes(x, scale, mask, bits, extra_bits, signed), scale)


def residuals(q, mask, extra_bits):
    """The e of every value of an important channel, flat."""
    important = np.broadcast_to(np.asarray(mask, bool), q.shape)
    return np.mod(q[important], 2**extra_bits)


def huffman_cost(counts):
    """Total bits and longest codeword of an optimal code, by the heap algorithm."""
    heap = [(int(count), index, 0) for index, count in enumerate(counts)]
    heapq.heapify(heap)
    total = longest = 0
    serial = len(heap)
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        longest = max(a[2], b[2]) + 1
        total += a[0] + b[0]
        heapq.heappush(heap, (a[0] + b[0], serial, longest))
        serial += 1
    return total, longest


def sqnr(x, x_hat):
    """Signal to quantization noise in dB."""
    x, x_hat = np.asarray(x, np.float64), np.asarray(x_hat, np.float64)
    return 10 * np.log10(np.sum(x**2) / np.sum((x - x_hat) ** 2))
