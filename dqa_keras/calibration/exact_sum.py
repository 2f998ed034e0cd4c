"""Sums of float32 numbers without rounding, so that their order does not matter.

>>> import numpy as np
>>> from dqa_keras.calibration import exact_sum
>>> limbs = exact_sum.zeros(1)
>>> for value in (1e30, 1.0, -1e30):
...     limbs += exact_sum.limbs(np.float32([value]))
>>> exact_sum.value(limbs).tolist()
[1.0]
"""

import numpy as np
from numpy.typing import NDArray

# A float32 is m 2^e with |m| < 2^24 and -149 <= e <= 104. Its bits are added to the
# limbs that they fall into. Limb i counts multiples of 2^(32 i - 149) and has room for
# the sum of 2^31 values.
_LIMBS = 9
_LOWEST = -149
_BITS = 32


def zeros(size: int) -> NDArray[np.int64]:
    """Limbs of `size` empty sums: int64 (size, 9)."""
    return np.zeros((size, _LIMBS), np.int64)


def limbs(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Finite float32 values (size,) as limbs, which add up as integers."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    mantissa = np.ldexp(fraction, 24).astype(np.int64)
    place = exponent - 24 - _LOWEST
    # Subnormal numbers have fewer bits: those below the lowest place are zeros.
    mantissa >>= np.maximum(-place, 0)
    limb, shift = np.divmod(np.maximum(place, 0), _BITS)
    shifted = mantissa << shift
    split = zeros(values.size)
    rows = np.arange(values.size)
    split[rows, limb] = shifted & (2**_BITS - 1)
    split[rows, np.minimum(limb + 1, _LIMBS - 1)] += shifted >> _BITS
    return split


def value(limbs: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sums, float64 (size,): their rounding does not depend on the order."""
    carried = limbs.copy()
    for i in range(_LIMBS - 1):
        carried[:, i + 1] += carried[:, i] >> _BITS
        carried[:, i] &= 2**_BITS - 1
    weights = np.ldexp(1.0, _BITS * np.arange(_LIMBS) + _LOWEST)
    total = np.zeros(len(limbs))
    for i in reversed(range(_LIMBS)):
        total += carried[:, i] * weights[i]
    return total
