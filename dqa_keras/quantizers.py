r"""The arithmetic of DQA, on any Keras backend.

For an activation $x$, target bits $n$, extra bits $m$ and a mask $k_c \in \{0, 1\}$ per
channel, $b_c = n + m k_c$ and

$$q = \mathrm{clip}(\mathrm{rint}(x \cdot s_c^{-1}), q_{min}, q_{max}), \qquad
  \hat x = q \cdot s_c$$

with $q_{min} = -z \cdot 2^{m k_c}$ and $q_{max} = q_{min} + 2^{b_c} - 1$. The zero
point z of a layer says how many of the $2^n$ base codes lie below 0: none of unsigned
codes, half of signed ones, fewer where the data has a short negative tail. An important
code splits into `base = q >> m`, which fits n bits, and `residual = q - (base << m)` in
$[0, 2^m)$.

Everything is float32 until the split, in the order written here: every implementation
(Keras, NumPy, TFLite, C++, JVM) repeats these operations one by one, so codes agree
bit for bit. `rint` rounds half to even.

>>> import numpy as np
>>> from dqa_keras import quantizers
>>> q_min, q_max = quantizers.code_range(4, 2, np.array([True, False]), signed=False)
>>> q = quantizers.encode(np.float32([[3.14, 3.14]]), np.float32([16, 4]), q_min, q_max)
>>> base, residual = quantizers.split(q, np.array([True, False]), extra_bits=2)
>>> np.asarray(q).tolist(), np.asarray(base).tolist(), np.asarray(residual).tolist()
([[50.0, 13.0]], [[12, 13]], [[2, 0]])

Reference:
    - [DQA, section 3](https://arxiv.org/abs/2412.09687)
"""

from typing import Any

import keras
from keras import ops

Tensor = Any


# Whether codes are signed, or the share of the codes that lie below 0: z / 2^n. `True`
# is a half.
Signed = bool | float


def negative_share(signed: Signed) -> float:
    """The share of the codes that lie below 0, in 0..0.5."""
    share = float(signed)
    return 0.5 if share == 1 else share


def code_limits(bits: int, signed: Signed) -> tuple[int, int]:
    """Smallest and largest of the codes of `bits` bits, as Python integers.

    Example:
    >>> code_limits(4, signed=False), code_limits(4, signed=True)
    ((0, 15), (-8, 7))
    >>> code_limits(4, signed=2 / 16)
    (-2, 13)
    """
    smallest = -int(negative_share(signed) * 2**bits)
    return smallest, smallest + 2**bits - 1


def code_range(
    bits: int, extra_bits: int, mask: Tensor, signed: Tensor
) -> tuple[Tensor, Tensor]:
    """Smallest and largest code of each channel.

    Args:
        bits: Integer. Stored bits n.
        extra_bits: Integer. Extra bits m of important channels.
        mask: Boolean tensor (C,). True for important channels.
        signed: Scalar (tensor or Python). Boolean: whether codes are signed. Float: the
            share of the codes that lie below 0.

    Returns:
        Two float32 tensors (C,): q_min and q_max.
    """
    levels = ops.where(mask, 2.0 ** (bits + extra_bits), 2.0**bits)
    return limits(levels, signed)


def limits(levels: Tensor, signed: Tensor) -> tuple[Tensor, Tensor]:
    """`code_limits` of each channel, as tensors.

    Args:
        levels: Tensor (C,). Number of codes of each channel, powers of two.
        signed: Scalar (tensor or Python). Boolean: whether codes are signed. Float: the
            share of the codes that lie below 0.

    Returns:
        Two float32 tensors (C,): q_min and q_max.
    """
    levels = ops.cast(levels, "float32")
    share = ops.convert_to_tensor(signed)
    if keras.backend.standardize_dtype(share.dtype) == "bool":
        share = 0.5 * ops.cast(share, "float32")
    offset = share * levels
    return -offset, levels - 1.0 - offset


def encode(x: Tensor, inverse_scale: Tensor, q_min: Tensor, q_max: Tensor) -> Tensor:
    """Codes of `x`, as whole numbers in float32.

    Args:
        x: Float32 tensor (N, ..., C).
        inverse_scale: Float32 tensor (C,), `float32(1) / scale`.
        q_min: Float32 tensor (C,).
        q_max: Float32 tensor (C,).

    Returns:
        Float32 tensor (N, ..., C).
    """
    return ops.clip(ops.round(ops.multiply(x, inverse_scale)), q_min, q_max)


def encode_straight_through(
    x: Tensor, inverse_scale: Tensor, q_min: Tensor, q_max: Tensor
) -> Tensor:
    r"""The codes of `encode`, with the straight-through gradient.

    $\partial q / \partial x = s^{-1}$ inside the range, 0 outside (Bengio et al., 2013,
    arXiv 1308.3432). The value is the same to the bit: for $|v| < 2^{22}$ the
    difference $\mathrm{rint}(v) - v$ is exact (Sterbenz), and so is its sum with $v$.
    """
    v = ops.clip(ops.multiply(x, inverse_scale), q_min, q_max)
    return v + ops.stop_gradient(ops.round(v) - v)


def store_learning(x: Tensor, scale: Tensor, q_min: Tensor, q_max: Tensor) -> Tensor:
    r"""Stored values, with the gradients of LSQ for the scale.

    $\partial \hat x / \partial s = \mathrm{rint}(v) - v$ with $v = x / s$ inside the
    range, $q_{min}$ or $q_{max}$ outside, times $1 / \sqrt{P q_{max}}$ for P positions
    of a channel in an image (arXiv 1902.08153, section 2).

    Args:
        x: Float32 tensor (N, ..., C).
        scale: Float32 tensor (C,).
        q_min: Float32 tensor (C,).
        q_max: Float32 tensor (C,).

    Returns:
        Float32 tensor (N, ..., C).
    """
    positions = ops.cast(ops.size(x[0]) // ops.shape(x)[-1], "float32")
    gain = ops.rsqrt(positions * ops.maximum(q_max, 1.0))
    slow = ops.multiply(scale, gain)
    step = slow + ops.stop_gradient(ops.convert_to_tensor(scale) - slow)
    v = ops.clip(ops.divide(x, step), q_min, q_max)
    return ops.multiply(v + ops.stop_gradient(ops.round(v) - v), step)


def decode(q: Tensor, scale: Tensor) -> Tensor:
    """Values of the codes: `q * scale`, float32 (N, ..., C)."""
    return ops.multiply(q, scale)


def split(q: Tensor, mask: Tensor, extra_bits: int) -> tuple[Tensor, Tensor]:
    """Splits codes into stored base codes and residuals.

    Args:
        q: Tensor (N, ..., C) of whole numbers.
        mask: Boolean tensor (C,). True for important channels.
        extra_bits: Integer. Extra bits m.

    Returns:
        Two int32 tensors (N, ..., C): the base codes, which fit n bits, and the
        residuals in [0, 2^m), which are 0 in unimportant channels.
    """
    q = ops.cast(q, "int32")
    high = ops.right_shift(q, extra_bits)
    base = ops.where(mask, high, q)
    residual = ops.where(mask, q - ops.left_shift(high, extra_bits), 0)
    return base, residual


def merge(base: Tensor, residual: Tensor, mask: Tensor, extra_bits: int) -> Tensor:
    """The inverse of `split`: int32 codes (N, ..., C)."""
    shifted = ops.left_shift(base, extra_bits) + residual
    return ops.where(mask, shifted, base)
