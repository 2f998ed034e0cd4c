"""How good predictions are: top-1 accuracy of classes, mean IoU of segmentations.

>>> import numpy as np
>>> from dqa_keras.analysis import accuracy
>>> tally = accuracy.Tally(classes=2)
>>> tally.add(np.float32([[0.2, 0.8], [0.9, 0.1]]), np.array([1, 1]))
>>> tally.percent()
50.0
"""

import numpy as np
from numpy.typing import NDArray


class Tally:
    """Counts predictions against labels, batch by batch.

    Args:
        classes: Integer K. In masks, labels outside 0..K-1 are void: not counted.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._confusion = np.zeros((classes, classes), np.int64)
        self._dense = False

    def add(self, scores: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Counts one batch.

        Args:
            scores: Float array (N, K) or (N, H, W, K).
            labels: Integer array (N,) or (N, H, W).

        Raises:
            ValueError: If the label of an image is outside 0..K-1.
        """
        self._dense = labels.ndim > 1
        predicted = np.argmax(scores, -1)
        known = (labels >= 0) & (labels < self._classes)
        if not self._dense and not known.all():
            raise ValueError(
                f"labels must be in 0..{self._classes - 1}, as the model has "
                f"{self._classes} outputs. Received: {int(labels[~known][0])}"
            )
        pairs = labels[known].astype(np.int64) * self._classes + predicted[known]
        counts = np.bincount(pairs, minlength=self._classes**2)
        self._confusion += counts.reshape(self._confusion.shape)

    @property
    def dense(self) -> bool:
        """Whether the labels were masks."""
        return self._dense

    def percent(self) -> float:
        """Top-1 accuracy, or mean IoU over the classes that occur, in percent."""
        right = np.diag(self._confusion)
        if not self._dense:
            return 100 * float(right.sum() / max(self._confusion.sum(), 1))
        union = self._confusion.sum(0) + self._confusion.sum(1) - right
        occurs = self._confusion.sum(1) > 0
        return 100 * float(np.mean(right[occurs] / union[occurs]))
