"""How close a quantized model stays to the float model, beside how good it is.

Accuracy on a few hundred images moves by a point without meaning it. Agreement with the
float model's classes and the error of the logits say more from the same images.

>>> import numpy as np
>>> from dqa_keras.analysis.comparison import Comparison
>>> comparison = Comparison(classes=2)
>>> exact = np.float32([[0.0, 2.0], [1.0, 0.0]])
>>> comparison.add(np.float32([[0.0, 1.0], [1.0, 0.0]]), exact, np.array([1, 1]))
>>> comparison.result()["agreement"], comparison.result()["output_error"]
(100.0, 0.2)
"""

import numpy as np
from numpy.typing import NDArray

from dqa_keras.analysis.accuracy import Tally


class Comparison:
    """Counts predictions against labels and against those of the float model.

    Args:
        classes: Integer K, as for `Tally`.
    """

    def __init__(self, classes: int) -> None:
        self._quantized, self._exact = Tally(classes), Tally(classes)
        self._error = self._signal = 0.0
        self._count = self._agreed = 0
        self._drops: list[NDArray[np.int64]] = []

    def add(
        self,
        scores: NDArray[np.floating],
        exact: NDArray[np.floating],
        labels: NDArray[np.integer],
    ) -> None:
        """Counts one batch.

        Args:
            scores: Float array (N, K) or (N, H, W, K). The quantized model's outputs.
            exact: The same of the float model.
            labels: Integer array (N,) or (N, H, W).

        Raises:
            ValueError: If the label of an image is outside 0..K-1.
        """
        self._quantized.add(scores, labels)
        self._exact.add(exact, labels)
        self._error += float(np.sum(np.square(scores - exact), dtype=np.float64))
        self._signal += float(np.sum(np.square(exact), dtype=np.float64))
        predicted, expected = np.argmax(scores, -1), np.argmax(exact, -1)
        self._agreed += int(np.sum(predicted == expected))
        self._count += predicted.size
        right = (expected == labels).astype(np.int64) - (predicted == labels)
        self._drops.append(right.ravel() if labels.ndim == 1 else right[:0].ravel())

    def result(self) -> dict[str, float]:
        """What was counted.

        Returns:
            `accuracy` as of `Tally`, in percent; `agreement`: share of images (pixels
            of masks) that both models give the same class, in percent; `output_error`:
            squared difference of the outputs over the squared outputs. For images with
            one label also `drop_error` and `agreement_error`: the standard errors of
            float accuracy minus accuracy, image by image, and of the agreement, in
            points.
        """
        agreement = self._agreed / max(self._count, 1)
        figures = {
            "accuracy": self._quantized.percent(),
            "agreement": 100 * agreement,
            "output_error": self._error / max(self._signal, 1e-30),
        }
        drops = np.concatenate(self._drops) if self._drops else np.zeros(0)
        if drops.size:
            root = np.sqrt(drops.size)
            figures["drop_error"] = 100 * float(np.std(drops) / root)
            spread = np.sqrt(agreement * (1 - agreement))
            figures["agreement_error"] = 100 * float(spread / root)
        return figures
