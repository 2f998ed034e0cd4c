"""The error of a model's output under trial codes of one quantizer.

Only the part of the model after the quantizer runs, several trials at once. Subclassed
models hide that part, and a shared layer has several: such models run whole.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras.backend import data_adapter
from dqa_keras.backend.compile import compiled
from dqa_keras.calibration.checkpoint import Checkpoint, Progress, digest
from dqa_keras.calibration.distribution import WorkerGroup
from dqa_keras.calibration.partial_run import PartialRun
from dqa_keras.graph import calls
from dqa_keras.layers import Quantizer, quantizer_layers

# Images of a whole model that run at once, unless it declares a batch size.
_IMAGES = 32

# Mask (C,) and scale (C,) of each trial.
Pairs = list[tuple[NDArray[np.bool_], NDArray[np.float32]]]


class Trials:
    """Tries masks and scales at one quantizer; all others pass everything through.

    Workers share the trials. Errors go to the checkpoint from time to time.

    Args:
        model: Keras model whose quantizers pass everything through.
        images: A batch of inputs.
        workers: `WorkerGroup` whose workers make the same calls. Defaults to one
            worker.
        checkpoint: `Checkpoint` to write. Defaults to none.
        progress: `Progress` with the errors that are known already. Defaults to none.
    """

    def __init__(
        self,
        model: keras.Model,
        images: Any,
        workers: WorkerGroup | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._model, self._images = model, images
        self._workers = workers or WorkerGroup()
        self._checkpoint = checkpoint
        self._progress = progress or Progress()
        self._digest = digest(map(np.asarray, keras.tree.flatten(images)))
        self._partial_run: PartialRun | None = None
        self._run: Callable[[Any], Any] | None = None
        self._expected: list[list[NDArray[np.float32]]] = []
        if calls.has_graph(model):
            self._partial_run = PartialRun(model, images)
        known = {str(key): value for key, value in self._progress.errors.items()}
        for note in self._workers.all_gather(known):
            for key, errors in note.items():
                _fill(self._progress.errors.setdefault(int(key), errors.copy()), errors)

    def errors(
        self,
        layer: Quantizer,
        masks: NDArray[np.bool_],
        scales: NDArray[np.float32],
        progress: Callable[[int], object] = lambda done: None,
    ) -> NDArray[np.float64]:
        """Summed squared difference from the unquantized model's output.

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
        errors = self._progress.errors.setdefault(
            self._key(layer, masks, scales), np.full(len(masks), np.nan)
        )
        missing = int(np.isnan(errors).sum())
        progress(len(errors) - missing)
        if not missing:
            return errors
        try:
            own = self._try_share(layer, masks, scales, errors, progress)
            for note in self._workers.all_gather({"errors": errors}):
                _fill(errors, note["errors"])
        except BaseException:
            if self._checkpoint:
                self._checkpoint.save(self._progress)
            raise
        progress(missing - own)
        return errors

    def _key(
        self, layer: Quantizer, masks: NDArray[np.bool_], scales: NDArray[np.float32]
    ) -> int:
        """A hash of some trials and all that they depend on."""
        number = [other is layer for other in quantizer_layers(self._model)].index(True)
        signed = bool(ops.convert_to_numpy(layer.signed))
        share = float(ops.convert_to_numpy(layer.negative_share))
        about = f"{number} {type(layer)} {layer.bits} {layer.extra_bits} {signed}"
        about += f" {share}"
        text = np.frombuffer(about.encode(), np.uint8)
        return digest([text, masks, scales], self._digest)

    def _try_share(
        self,
        layer: Quantizer,
        masks: NDArray[np.bool_],
        scales: NDArray[np.float32],
        errors: NDArray[np.float64],
        progress: Callable[[int], object],
    ) -> int:
        """Makes this worker's share of the missing trials; returns how many."""
        at_once, run = self._runner(layer)
        groups = [
            slice(first, first + at_once)
            for first in range(0, len(errors), at_once)
            if np.isnan(errors[first : first + at_once]).any()
        ]
        own = 0
        for group in groups[self._workers.rank :: self._workers.size]:
            errors[group] = run(list(zip(masks[group], scales[group], strict=True)))
            progress(len(errors[group]))
            own += len(errors[group])
            if self._checkpoint:
                self._checkpoint.save_if_due(self._progress)
        return own

    def _runner(self, layer: Quantizer) -> tuple[int, Callable[[Pairs], Any]]:
        """How many trials run at once, and the function that runs them."""
        if self._partial_run and self._partial_run.can_start_at(layer):
            return self._run_partially(self._partial_run, layer)
        return 1, self._whole(layer)

    def _run_partially(
        self, partial_run: PartialRun, layer: Quantizer
    ) -> tuple[int, Callable[[Pairs], Any]]:
        inputs = partial_run.start_at(layer)
        if not self._expected:
            self._expected = [
                [_array(y) for y in partial_run.outputs(group, x)]
                for group, x in enumerate(inputs)
            ]

        def run(some: Pairs) -> NDArray[np.float64]:
            errors = np.zeros(len(some))
            for group, x in enumerate(inputs):
                stored = [_stored(layer, mask, scale, x) for mask, scale in some]
                outputs = partial_run.outputs(group, ops.concatenate(stored))
                errors += _squared_distance(outputs, self._expected[group], len(some))
            return errors

        return partial_run.copies(), run

    def _whole(self, layer: Quantizer) -> Callable[[Pairs], Any]:
        run = self._run or compiled(lambda x: self._model(x, training=False))
        self._run = run
        batches = list(data_adapter.fitting(self._model, self._images, _IMAGES))

        def all_outputs() -> list[NDArray[np.float32]]:
            parts = [map(_array, keras.tree.flatten(run(x))) for x in batches]
            return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

        expected = all_outputs()

        def run_whole(some: Pairs) -> NDArray[np.float64]:
            ((mask, scale),) = some
            layer.calibrated.assign(True)
            layer.mask.assign(mask)
            layer.set_scale(scale)
            outputs = all_outputs()
            layer.calibrated.assign(False)
            return _squared_distance(outputs, expected, 1)

        return run_whole


def _fill(errors: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Takes over errors that another worker measured."""
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
