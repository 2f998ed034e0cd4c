"""Runs a `.tflite` file in LiteRT, called like the Keras model it came from."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray


class Runner:
    """A `.tflite` in LiteRT, called with batches of one.

    Args:
        data: Bytes of the file.
        threads: Integer. Threads to run on. Defaults to `1`.
        delegates: Delegates that the file needs. Defaults to none.
    """

    def __init__(
        self, data: bytes, threads: int = 1, delegates: Sequence[Any] = ()
    ) -> None:
        self._interpreter = Interpreter(
            model_content=data,
            num_threads=threads,
            experimental_delegates=list(delegates) or None,
        )
        self._inputs = self._interpreter.get_input_details()
        self._shapes: list[tuple[int, ...]] | None = None

    def __call__(self, x: Any) -> list[NDArray]:
        """The outputs, flat, for inputs in the structure that the model takes."""
        arrays = keras.tree.flatten(x)
        shapes = [np.shape(array) for array in arrays]
        if shapes != self._shapes:
            for detail, shape in zip(self._inputs, shapes, strict=True):
                if tuple(detail["shape"]) != shape:
                    self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for detail, array in zip(self._inputs, arrays, strict=True):
            value = np.asarray(array, detail["dtype"])
            self._interpreter.set_tensor(detail["index"], value)
        self._interpreter.invoke()
        return [
            self._interpreter.get_tensor(detail["index"])
            for detail in self._interpreter.get_output_details()
        ]
