"""The error of a model's output while one of its quantizers is tried.

Only what lies behind the quantizer runs, for several masks at once. Subclassed models
hide where that is, and a shared layer has several such places: they run whole.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras import graph, tracing
from dqa_keras.layers import Quantizer
from dqa_keras.resuming import Resuming


class Steps(NamedTuple):
    """The scale of each channel at n and at n + m bits, float32 (C,)."""

    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]

    def of(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The scales if the channels of a mask are important."""
        return np.where(mask, self.fine, self.coarse)


class Trials:
    """Tries masks at one quantizer; all others pass everything.

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
        steps: Steps,
        masks: NDArray[np.bool_],
        progress: Callable[[int], object],
    ) -> NDArray[np.float64]:
        """Summed squared difference of the output from the unquantized model's.

        Args:
            layer: `Quantizer` of C channels; its scale and mask are changed.
            steps: `Steps` of its channels.
            masks: Boolean array (K, C). Important channels of each trial.
            progress: Function. Called with the number of trials that are done.

        Returns:
            Float64 array (K,).
        """
        if self._resuming and self._resuming.knows(layer):
            return self._resumed(self._resuming, layer, steps, masks, progress)
        return self._whole(layer, steps, masks, progress)

    def _resumed(
        self,
        resuming: Resuming,
        layer: Quantizer,
        steps: Steps,
        masks: NDArray[np.bool_],
        progress: Callable[[int], object],
    ) -> NDArray[np.float64]:
        inputs = resuming.go_to(layer)
        if not self._expected:
            self._expected = [
                [_array(y) for y in resuming.outputs(group, x)]
                for group, x in enumerate(inputs)
            ]
        coarse, fine = (
            [_stored(layer, steps, np.full(masks.shape[1], m), x) for x in inputs]
            for m in (False, True)
        )
        found = np.zeros(len(masks))
        at_once = resuming.copies()
        for first in range(0, len(masks), at_once):
            some = masks[first : first + at_once]
            for group, pair in enumerate(zip(coarse, fine, strict=True)):
                outputs = resuming.outputs(group, _mixed(some, *pair))
                found[first : first + at_once] += _squared_distance(
                    outputs, self._expected[group], len(some)
                )
            progress(len(some))
        return found

    def _whole(
        self,
        layer: Quantizer,
        steps: Steps,
        masks: NDArray[np.bool_],
        progress: Callable[[int], object],
    ) -> NDArray[np.float64]:
        if self._run is None:
            self._run = tracing.compiled(lambda x: self._model(x, training=False))
        expected = [_array(y) for y in keras.tree.flatten(self._run(self._images))]
        found = np.zeros(len(masks))
        layer.calibrated.assign(True)
        for number, mask in enumerate(masks):
            layer.mask.assign(mask)
            layer.set_scale(steps.of(mask))
            outputs = keras.tree.flatten(self._run(self._images))
            found[number] = _squared_distance(outputs, expected, 1)[0]
            progress(1)
        layer.calibrated.assign(False)
        return found


def _stored(
    layer: Quantizer, steps: Steps, mask: NDArray[np.bool_], inputs: Any
) -> Any:
    layer.mask.assign(mask)
    layer.set_scale(steps.of(mask))
    return ops.cast(layer.quantized(inputs), inputs.dtype)


def _mixed(masks: NDArray[np.bool_], coarse: Any, fine: Any) -> Any:
    """Activations (k n, ..., C) of k masks (k, C), from those of n images."""
    shape = (len(masks), *(1,) * (len(fine.shape) - 1), masks.shape[1])
    mixed = ops.where(masks.reshape(shape), fine[None], coarse[None])
    return ops.reshape(mixed, (-1, *fine.shape[1:]))


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
