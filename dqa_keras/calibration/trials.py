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

from dqa_keras.calibration.checkpoint import Checkpoint, Progress, digest
from dqa_keras.calibration.distribution import Team
from dqa_keras.calibration.partial_run import Resuming
from dqa_keras.graph import calls, hooks
from dqa_keras.layers import Quantizer, quantizer_layers

# Mask (C,) and scale (C,) of each trial.
Pairs = list[tuple[NDArray[np.bool_], NDArray[np.float32]]]


class Trials:
    """Tries masks and scales at one quantizer; all others pass everything.

    Workers share the trials. What is found goes to the checkpoint from time to time.

    Args:
        model: Keras model whose quantizers pass everything.
        images: A batch of inputs.
        team: `Team` of workers that call all this alike. Defaults to one worker.
        checkpoint: `Checkpoint` to write. Defaults to none.
        progress: `Progress` with the errors that are known already. Defaults to none.
    """

    def __init__(
        self,
        model: keras.Model,
        images: Any,
        team: Team | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._model, self._images = model, images
        self._team = team or Team()
        self._checkpoint = checkpoint
        self._progress = progress or Progress()
        self._digest = digest(map(np.asarray, keras.tree.flatten(images)))
        self._resuming: Resuming | None = None
        self._run: Callable[[Any], Any] | None = None
        self._expected: list[list[NDArray[np.float32]]] = []
        if calls.is_known(model):
            self._resuming = Resuming(model, images)
        known = {str(key): value for key, value in self._progress.errors.items()}
        for note in self._team.exchange(known):
            for key, errors in note.items():
                _fill(self._progress.errors.setdefault(int(key), errors.copy()), errors)

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

        Raises:
            LostWorkerError: If another worker is gone.
        """
        found = self._progress.errors.setdefault(
            self._key(layer, masks, scales), np.full(len(masks), np.nan)
        )
        missing = int(np.isnan(found).sum())
        progress(len(found) - missing)
        if not missing:
            return found
        try:
            own = self._try_share(layer, masks, scales, found, progress)
            for note in self._team.exchange({"errors": found}):
                _fill(found, note["errors"])
        except BaseException:
            if self._checkpoint:
                self._checkpoint.save(self._progress)
            raise
        progress(missing - own)
        return found

    def _key(
        self, layer: Quantizer, masks: NDArray[np.bool_], scales: NDArray[np.float32]
    ) -> int:
        """A number that stands for some trials and all that they depend on."""
        number = [other is layer for other in quantizer_layers(self._model)].index(True)
        signed = bool(ops.convert_to_numpy(layer.signed))
        about = f"{number} {type(layer)} {layer.bits} {layer.extra_bits} {signed}"
        text = np.frombuffer(about.encode(), np.uint8)
        return digest([text, masks, scales], self._digest)

    def _try_share(
        self,
        layer: Quantizer,
        masks: NDArray[np.bool_],
        scales: NDArray[np.float32],
        found: NDArray[np.float64],
        progress: Callable[[int], object],
    ) -> int:
        """Makes this worker's share of the trials that are missing; how many."""
        at_once, run = self._runner(layer)
        groups = [
            slice(first, first + at_once)
            for first in range(0, len(found), at_once)
            if np.isnan(found[first : first + at_once]).any()
        ]
        own = 0
        for group in groups[self._team.rank :: self._team.size]:
            found[group] = run(list(zip(masks[group], scales[group], strict=True)))
            progress(len(found[group]))
            own += len(found[group])
            if self._checkpoint:
                self._checkpoint.save_in_time(self._progress)
        return own

    def _runner(self, layer: Quantizer) -> tuple[int, Callable[[Pairs], Any]]:
        """How many trials run at once, and the function that runs them."""
        if self._resuming and self._resuming.knows(layer):
            return self._resumed(self._resuming, layer)
        return 1, self._whole(layer)

    def _resumed(
        self, resuming: Resuming, layer: Quantizer
    ) -> tuple[int, Callable[[Pairs], Any]]:
        inputs = resuming.go_to(layer)
        if not self._expected:
            self._expected = [
                [_array(y) for y in resuming.outputs(group, x)]
                for group, x in enumerate(inputs)
            ]

        def run(some: Pairs) -> NDArray[np.float64]:
            found = np.zeros(len(some))
            for group, x in enumerate(inputs):
                stored = [_stored(layer, mask, scale, x) for mask, scale in some]
                outputs = resuming.outputs(group, ops.concatenate(stored))
                found += _squared_distance(outputs, self._expected[group], len(some))
            return found

        return resuming.copies(), run

    def _whole(self, layer: Quantizer) -> Callable[[Pairs], Any]:
        run = self._run or hooks.compiled(lambda x: self._model(x, training=False))
        self._run = run
        expected = [_array(y) for y in keras.tree.flatten(run(self._images))]

        def run_whole(some: Pairs) -> NDArray[np.float64]:
            ((mask, scale),) = some
            layer.calibrated.assign(True)
            layer.mask.assign(mask)
            layer.set_scale(scale)
            outputs = keras.tree.flatten(run(self._images))
            layer.calibrated.assign(False)
            return _squared_distance(outputs, expected, 1)

        return run_whole


def _fill(errors: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Takes over what another worker found."""
    np.copyto(errors, other, where=np.isnan(errors))


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
