"""Runs a `.tflite` file in LiteRT, called like the Keras model it came from."""

from collections.abc import Iterator, Sequence
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
        """The outputs, flat, for inputs in the structure that the model takes.

        Quantized ones come as the values that their codes stand for.
        """
        arrays = keras.tree.flatten(x)
        shapes = [np.shape(array) for array in arrays]
        if shapes != self._shapes:
            for detail, shape in zip(self._inputs, shapes, strict=True):
                if self._shapes is not None or tuple(detail["shape"]) != shape:
                    self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for detail, array in zip(self._inputs, arrays, strict=True):
            value = np.asarray(array, detail["dtype"])
            self._interpreter.set_tensor(detail["index"], value)
        self._interpreter.invoke()
        return [
            self._output(detail) for detail in self._interpreter.get_output_details()
        ]

    def _output(self, detail: dict[str, Any]) -> NDArray:
        values = self._interpreter.get_tensor(detail["index"])
        scale, zero = detail["quantization"]
        if scale == 0:
            return values
        return np.float32(scale) * (values.astype(np.float32) - zero)


def images(samples: Any) -> Iterator[Any]:
    """Samples (arrays of N each, in the structure that a model takes) one by one."""
    for index in range(len(keras.tree.flatten(samples)[0])):
        yield keras.tree.map_structure(
            lambda array, index=index: np.asarray(array[index : index + 1]), samples
        )
