"""A model that computes each batch once: the float one, which all cells share."""

import zlib
from typing import Any


class Remembered:
    """Stands in for a model where only its predictions are asked for.

    Args:
        model: Keras model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._outputs: dict[int, Any] = {}

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """As the model's."""
        return self._model.output_shape

    def predict_on_batch(self, x: Any) -> Any:
        """As the model's, but of a batch seen before it is what it was then."""
        key = zlib.crc32(x.numpy().tobytes())
        if key not in self._outputs:
            self._outputs[key] = self._model.predict_on_batch(x)
        return self._outputs[key]
