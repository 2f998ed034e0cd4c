"""The error of a model's output while the codes of one quantizer are tried.

Only what lies behind the quantizer runs, several trials at once. Subclassed models hide
where that is, and a shared layer has several such places: they run whole.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras import graph, tracing
from dqa_keras.layers import Quantizer
from dqa_keras.resuming import Resuming


class Trials:
    """Tries masks and scales at one quantizer; all others pass everything.

    Args:
        model: Keras model whose quantizers pass everything.
        images: A batch of inputs.
    """

    def __init__(self, model: keras.Model, images: Any) -> None:
        self._model, self._images = model, images
        self._resuming: Resuming | None = None
        self._run: Callable[[Any], Any] | None = None
        self._expected: list[list[NDArray[np.float32]]] = []
        if graph.is_known(model):
            self._resuming = Resuming(model, images)

    def errors(
        self,
        layer: Quantizer,
        masks: NDArray[np.bool_],
        scales: NDArray[np.float32],
        progress: Callable[[int], object] = lambda done: None,
    ) -> NDArray[np.float64]:
        """Summed squared difference of the output from the unquantized model's.

        Args:
            layer: `Quantizer` of C channels; its scale and mask are changed.
            masks: Boolean array (K, C). Important channels in each of K trials.
            scales: Float32 array (K, C). Step of each channel.
            progress: Function. Called with the number of trials that are done.
                Defaults to one that does nothing.

        Returns:
            Float64 array (K,).
        """
        pairs = list(zip(masks, scales, strict=True))
        if self._resuming and self._resuming.knows(layer):
            return self._resumed(self._resuming, layer, pairs, progress)
        return self._whole(layer, pairs, progress)

    def _resumed(
        self,
        resuming: Resuming,
        layer: Quantizer,
        pairs: list[tuple[NDArray[np.bool_], NDArray[np.float32]]],
        progress: Callable[[int], object],
    ) -> NDArray[np.float64]:
        inputs = resuming.go_to(layer)
        if not self._expected:
            self._expected = [
                [_array(y) for y in resuming.outputs(group, x)]
                for group, x in enumerate(inputs)
            ]
        found = np.zeros(len(pairs))
        at_once = resuming.copies()
        for first in range(0, len(pairs), at_once):
            some = pairs[first : first + at_once]
            for group, x in enumerate(inputs):
                stored = [_stored(layer, mask, scale, x) for mask, scale in some]
                outputs = resuming.outputs(group, ops.concatenate(stored))
                found[first : first + at_once] += _squared_distance(
                    outputs, self._expected[group], len(some)
                )
            progress(len(some))
        return found

    def _whole(
        self,
        layer: Quantizer,
        pairs: list[tuple[NDArray[np.bool_], NDArray[np.float32]]],
        progress: Callable[[int], object],
    ) -> NDArray[np.float64]:
        if self._run is None:
            self._run = tracing.compiled(lambda x: self._model(x, training=False))
        expected = [_array(y) for y in keras.tree.flatten(self._run(self._images))]
        found = np.zeros(len(pairs))
        layer.calibrated.assign(True)
        for number, (mask, scale) in enumerate(pairs):
            layer.mask.assign(mask)
            layer.set_scale(scale)
            outputs = keras.tree.flatten(self._run(self._images))
            found[number] = _squared_distance(outputs, expected, 1)[0]
            progress(1)
        layer.calibrated.assign(False)
        return found


def _stored(
    layer: Quantizer, mask: NDArray[np.bool_], scale: NDArray[np.float32], inputs: Any
) -> Any:
    layer.mask.assign(mask)
    layer.set_scale(scale)
    return ops.cast(layer.quantized(inputs), inputs.dtype)


def _array(y: Any) -> NDArray[np.float32]:
    return ops.convert_to_numpy(ops.cast(y, "float32"))


def _squared_distance(
    outputs: list[Any], expected: list[NDArray[np.float32]], copies: int
) -> NDArray[np.float64]:
    """Of each of the copies, one after another: (copies,)."""
    return sum(
        np.square(_array(y).reshape(copies, *reference.shape) - reference)
        .reshape(copies, -1)
        .sum(1, dtype=np.float64)
        for y, reference in zip(outputs, expected, strict=True)
    )
