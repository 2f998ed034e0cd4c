r"""Weights and biases of linear layers that fit given results, from their moments.

>>> import numpy as np
>>> from dqa_keras.tuning.least_squares import Moments
>>> x = np.random.default_rng(0).normal(size=(1, 64, 3)).astype(np.float32)
>>> moments = Moments.of(x, x @ np.float32([[1], [2], [3]]) + 5)
>>> weights, bias = moments.solved(np.zeros((1, 3, 1)), ridge=0.0)
>>> weights.round(3).ravel().tolist(), bias.round(3).ravel().tolist()
([1.0, 2.0, 3.0], [5.0])
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass
class Moments:
    """Sums over n equations of G groups with D inputs and M outputs each.

    Args:
        count: Integer. n.
        x: Float64 array (G, 1, D). Sums of the inputs.
        y: Float64 array (G, 1, M). Sums of the outputs.
        xx: Float64 array (G, D, D). Sums of the inputs' products.
        xy: Float64 array (G, D, M). Sums of inputs times outputs.
        yy: Float. Sum of all squared outputs.
    """

    count: int
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: float

    @classmethod
    def of(cls, x: NDArray[np.float32], y: NDArray[np.float32]) -> "Moments":
        """The moments of inputs (G, n, D) and outputs (G, n, M)."""
        turned = x.transpose(0, 2, 1)
        return cls(
            x.shape[1],
            x.sum(1, dtype=np.float64, keepdims=True),
            y.sum(1, dtype=np.float64, keepdims=True),
            (turned @ x).astype(np.float64),
            (turned @ y).astype(np.float64),
            float(np.sum(np.square(y), dtype=np.float64)),
        )

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of equations."""
        mine, theirs = vars(self), vars(other)
        return Moments(**{name: mine[name] + theirs[name] for name in mine})

    def solved(
        self, weights: Array, ridge: float, centred: bool = True
    ) -> tuple[Array, Array]:
        """Weights and bias of the least squared error.

        Args:
            weights: Float64 array (G, D, M). Those that the new ones stay close to.
            ridge: Float. How close: the factor of the squared distance, in the mean
                square of an input. Infinity keeps the weights.
            centred: Boolean. Whether there is a bias. Defaults to `True`.

        Returns:
            The weights (G, D, M) and the bias (G, 1, M).
        """
        x, y = self.x / self.count, self.y / self.count
        if not centred:
            x, y = np.zeros_like(x), np.zeros_like(y)
        if np.isfinite(ridge):
            xx = self.xx / self.count - x.transpose(0, 2, 1) * x
            xy = self.xy / self.count - x.transpose(0, 2, 1) * y
            inputs = xx.shape[1]
            power = np.trace(xx, axis1=1, axis2=2)[:, None, None] / inputs
            # A group whose inputs never change keeps its weights.
            damping = ridge * power + np.where(power > 0, 1e-9 * power, 1.0)
            step = np.linalg.solve(xx + damping * np.eye(inputs), xy - xx @ weights)
            weights = weights + step
        return weights, y - x @ weights

    def error(self, weights: Array, bias: Array) -> float:
        """Mean squared error of an equation's M G outputs, summed."""
        product = self.xx @ weights
        total = self.yy - 2 * np.sum(weights * self.xy) + np.sum(weights * product)
        total += np.sum(bias * (self.count * bias + 2 * (self.x @ weights - self.y)))
        return float(total) / self.count
