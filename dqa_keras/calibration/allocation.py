"""Which channels get the extra bits.

>>> import numpy as np
>>> from dqa_keras.calibration import allocation
>>> allocation.top_share(np.array([0.1, 3.0, 2.0, 0.2]), 0.5).tolist()
[False, True, True, False]
"""

import numpy as np
from numpy.typing import NDArray


def top_share(
    scores: NDArray[np.floating], important_fraction: float
) -> NDArray[np.bool_]:
    """Marks the share of channels with the highest scores.

    Args:
        scores: Float array (C,).
        important_fraction: Float in 0..1. `rint(important_fraction * C)` channels are
            marked; equal scores go to the lower channel first.

    Returns:
        Boolean array (C,).
    """
    count = int(np.rint(important_fraction * scores.size))
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores, kind="stable")[:count]] = True
    return mask
