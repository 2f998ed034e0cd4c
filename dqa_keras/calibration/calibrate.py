"""Calibrates the quantizers of a model from data.

One pass over the data collects statistics; everything else follows from them:

    statistics (observers) -> parameters -> the layers' state

The model runs unquantized during that pass. With `ranking="greedy"` a fixed number of
images is kept, on which each channel's extra bits are tried.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from dqa_keras.backend import data_adapter
from dqa_keras.calibration import distribution, parameters, statistics
from dqa_keras.calibration.checkpoint import Checkpoint
from dqa_keras.calibration.distribution import WorkerGroup
from dqa_keras.layers import Quantizer, quantizer_layers


@contextmanager
def _passing_through(layers: list[Quantizer]) -> Iterator[None]:
    """Quantizers let everything pass; after an error their state is as before."""
    saved = [layer.get_weights() for layer in layers]
    for layer in layers:
        layer.calibrated.assign(False)
    try:
        yield
    except BaseException:
        for layer, weights in zip(layers, saved, strict=True):
            layer.set_weights(weights)
        raise


def _built_quantizers(model: keras.Model, x: Any) -> list[Quantizer]:
    if any(not layer.built for layer in quantizer_layers(model)):
        model(x, training=False)  # builds subclassed models
    layers = quantizer_layers(model)
    if not layers:
        raise ValueError(
            f"model {model.name!r} has no quantizing layer. Use "
            "dqa_keras.quantize_model(model, config), or add dqa_keras.layers.DQA."
        )
    return layers


def calibrate(
    model: keras.Model,
    data: Any,
    *,
    batch_size: int = 32,
    verbose: int = 1,
    checkpoint: str | os.PathLike | None = None,
) -> None:
    """Calibrates every quantizing layer of a model, in place.

    Under `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy` the work is
    shared out: call it within the strategy's scope, on every worker with the same model
    and all of the data. The result is the same on all of them and the same as one
    worker's, bit for bit.

    Args:
        model: Keras model with quantizing layers, built by `quantize_model` or by hand.
        data: Representative inputs; labels are not used. Arrays, a `tf.data.Dataset`,
            a `PyDataset`, an iterable of batches, or a function that gives one, such as
            TFLite's `representative_dataset`. For a model with several inputs a batch
            is a list of arrays or a dictionary by input name.
        batch_size: Integer. Images that are computed together, whatever batches `data`
            comes in. A batch size that the model's inputs declare takes its place; a
            last batch that is not full is then left out. Defaults to `32`.
        verbose: Integer. `0` hides the progress bars. Defaults to `1`.
        checkpoint: Path of a file. If it exists, calibration goes on from it; it is
            written from time to time and deleted at the end. Workers may name one file
            or several. Defaults to `None`: an interrupted calibration starts over.

    Raises:
        ValueError: If the model has no quantizing layer, the data is empty or does not
            fit the model, an activation holds NaN or infinity, or the checkpoint is
            damaged or belongs to another model or other data. The model is then as it
            was before.
        LostWorkerError: If another worker is gone. The model is then as it was before.

    Example:
    >>> import keras, numpy as np
    >>> import dqa_keras as dqa
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, activation="relu"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    >>> dqa.calibrate(quantized, np.random.default_rng(0).random((64, 4)), verbose=0)
    """
    layers = quantizer_layers(model)
    if any(not layer.built for layer in layers) or not layers:
        x, data = data_adapter.first_batch(model, data, batch_size)
        layers = _built_quantizers(model, x)
    workers = distribution.worker_group(model)
    loss = parameters.loss_needed(layers)
    progress_file = Checkpoint(checkpoint, model, batch_size, loss)
    with _passing_through(layers):
        collected = statistics.collect(
            model,
            data,
            batch_size,
            verbose,
            keep=parameters.images_needed(model, layers),
            loss=loss,
            workers=workers,
            checkpoint=progress_file,
        )
        unused = [
            layer.name for layer in layers if layer.name not in collected.observers
        ]
        if unused:
            raise ValueError(
                f"layer {unused[0]!r} was never called: it is part of the model "
                "but not on the way from its inputs to its outputs. Remove it."
            )
        computed = parameters.compute(
            model, layers, collected, verbose, workers, progress_file
        )
        for layer in layers:
            layer.assign(computed[layer.name])
        _adopt_first(layers, workers)
    progress_file.remove()


def _adopt_first(layers: list[Quantizer], workers: WorkerGroup) -> None:
    """Takes over the first worker's parameters: libraries may round otherwise."""
    if workers.size == 1:
        return
    for layer in layers:
        own = {str(i): weight for i, weight in enumerate(layer.get_weights())}
        first = workers.all_gather(own if workers.rank == 0 else {})[0]
        layer.set_weights([first[name] for name in own])


class CalibrationCallback(keras.callbacks.Callback):
    """Calibrates the model when `evaluate`, `predict` or `fit` begins.

    Args:
        data: Representative inputs, as for `calibrate`.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.
        verbose: Integer. `0` hides the progress bars. Defaults to `1`.

    Example:
    >>> import keras, numpy as np
    >>> import dqa_keras as dqa
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, activation="relu"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4))
    >>> x = np.random.default_rng(0).random((64, 4))
    >>> callback = dqa.CalibrationCallback(x, verbose=0)
    >>> quantized.predict(x, callbacks=[callback], verbose=0).shape
    (64, 2)
    """

    def __init__(self, data: Any, *, batch_size: int = 32, verbose: int = 1) -> None:
        super().__init__()
        self._data = data
        self._batch_size = batch_size
        self._verbose = verbose
        self._training = False

    def set_model(self, model: keras.Model) -> None:
        """Called when `fit`, `evaluate` or `predict` starts, not for validation."""
        super().set_model(model)
        self._training = False

    def _calibrate(self) -> None:
        calibrate(
            self.model,
            self._data,
            batch_size=self._batch_size,
            verbose=self._verbose,
        )

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Calibrates, unless this is the validation inside `fit`."""
        if not self._training:
            self._calibrate()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Calibrates before the first batch."""
        self._calibrate()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Calibrates once, before the first step."""
        self._training = True
        self._calibrate()
