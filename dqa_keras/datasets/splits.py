"""What every source of images gives."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set of images with labels.

    Args:
        train: `tf.data.Dataset` of (image, label), unbatched; images are float32
            (H, W, C), labels int64, () or (H, W). For calibration.
        test: The same, for measuring accuracy. Cityscapes' and ImageNet's are their
            validation splits, as the labels of their test splits are secret.
        labels: Class labels, or `None` if the source does not name them.
        note: String. How the parts were chosen, where the source left that open; empty
            otherwise.
        classes: Integer. The highest label plus one, or `None` if only reading all
            labels would tell.
    """

    train: Any
    test: Any
    labels: list[str] | None
    note: str = ""
    classes: int | None = None
