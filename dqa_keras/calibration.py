"""Decides scales, masks and residual tables from data.

One pass over the data gathers statistics; everything else follows from them:

    observers -> ranges -> importance -> allocation -> the layers' state

The model runs unquantized during that pass. With `ranking="greedy"` a fixed number of
images is kept aside and tried again with each channel's extra bits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras import allocation, feeding, gathering, importance, ranges, tracing
from dqa_keras.layers import Calibration, Quantizer, quantizer_layers
from dqa_keras.observers import Observer, decibels

# Images on which `greedy` tries channels.
_TRIAL_IMAGES = 32


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


def _is_greedy(layer: Quantizer) -> bool:
    return layer.extra_bits > 0 and layer.config.ranking == "greedy"


class _Steps(NamedTuple):
    """The scale of each channel at n and at n + m bits, float32 (C,)."""

    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]


def _output_error(model: keras.Model, images: Any) -> Callable[[], float]:
    """Summed squared difference of the output from that of now, unquantized."""
    run = tracing.compiled(lambda x: model(x, training=False))
    reference = [np.asarray(y, np.float64) for y in keras.tree.flatten(run(images))]

    def error() -> float:
        outputs = keras.tree.flatten(run(images))
        return sum(
            float(np.sum((np.asarray(y, np.float64) - r) ** 2))
            for y, r in zip(outputs, reference, strict=True)
        )

    return error


def _ranker(
    model: keras.Model, layers: list[Quantizer], images: Any, verbose: int
) -> Callable[[Quantizer, Observer, bool, _Steps], NDArray[np.floating]]:
    """The function that scores the channels of a layer."""
    greedy = [layer for layer in layers if _is_greedy(layer)]
    progress = tqdm(
        total=importance.trial_count(greedy),
        desc="rank channels",
        unit="trial",
        disable=None if verbose and greedy else True,
    )
    output_error = _output_error(model, images) if greedy else None

    def rank(
        layer: Quantizer, observer: Observer, signed: bool, steps: _Steps
    ) -> NDArray[np.floating]:
        if not layer.extra_bits:
            return np.zeros(steps.fine.size)
        if output_error is None or not _is_greedy(layer):
            return importance.mse_scores(
                observer, steps, layer.bits, layer.extra_bits, signed
            )
        layer.signed.assign(signed)
        layer.calibrated.assign(True)
        scores = importance.greedy_scores(layer, steps, output_error, progress.update)
        layer.calibrated.assign(False)
        return scores

    return rank


def _is_signed(layer: Quantizer, observer: Observer) -> bool:
    if layer.config.signed == "auto":
        return bool(observer.minimum.min() < 0)
    return layer.config.signed


def _steps(layer: Quantizer, observer: Observer, signed: bool) -> _Steps:
    config = layer.config

    def at(bits: int) -> NDArray[np.float32]:
        found = ranges.thresholds(
            observer,
            bits,
            signed,
            config.clipping,
            config.granularity,
            config.percentile,
        )
        return (found / ranges.largest_code(bits, signed)).astype(np.float32)

    return _Steps(at(layer.bits), at(layer.bits + layer.extra_bits))


def _finish(
    layer: Quantizer,
    observer: Observer,
    signed: bool,
    steps: _Steps,
    scores: NDArray[np.floating],
) -> Calibration:
    """Mask, scale, counts and SQNR of one layer, from its ranking."""
    mask = allocation.top_share(scores, layer.config.important_fraction)
    mask &= layer.extra_bits > 0
    scale = np.where(mask, steps.fine, steps.coarse)
    base_counts = np.zeros(2**layer.bits, np.int64)
    residual_counts = np.zeros(2**layer.extra_bits, np.int64)
    signal = noise = 0.0
    for important, shift in ((False, 0), (True, layer.extra_bits)):
        rows = mask == important
        for side in ranges.histogram_codes(
            observer, scale, layer.bits + shift, signed, layer.offset(scale)
        ):
            counts = side.counts[rows].astype(np.float64)
            codes = side.codes[rows]
            base_counts += _counted(codes >> shift, counts, base_counts.size)
            if important:
                residual_counts += _counted(codes, counts, residual_counts.size)
            signal += float(np.sum(counts * side.values[rows] ** 2))
            noise += float(np.sum(counts * side.errors[rows] ** 2))
    return Calibration(
        scale=scale,
        mask=mask,
        signed=signed,
        residual_counts=residual_counts,
        base_counts=base_counts,
        importance=scores,
        sqnr=decibels(signal, noise),
    )


def _counted(
    codes: NDArray[np.int64], counts: NDArray[np.float64], symbols: int
) -> NDArray[np.int64]:
    """How often each value of the lowest bits of the codes occurs."""
    low = codes.ravel() & (symbols - 1)
    return np.bincount(low, counts.ravel(), minlength=symbols).astype(np.int64)


def calibrate(
    model: keras.Model, data: Any, *, batch_size: int = 32, verbose: int = 1
) -> None:
    """Calibrates every quantizing layer of a model, in place.

    Args:
        model: Keras model with quantizing layers, built by `quantize_model` or by hand.
        data: Representative inputs; labels are not used. Arrays, a `tf.data.Dataset`,
            a `PyDataset` or a generator of batches.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.
        verbose: Integer. `0` hides the progress bars. Defaults to `1`.

    Raises:
        ValueError: If the model has no quantizing layer, the data is empty or does not
            fit the model, or an activation holds NaN or infinity. The model is then
            as it was before.

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
        x, data = feeding.first_batch(data, batch_size)
        layers = _built_quantizers(model, x)
    with _passing_through(layers):
        keep = _TRIAL_IMAGES if any(_is_greedy(layer) for layer in layers) else 0
        observers, images = gathering.collect(model, data, batch_size, verbose, keep)
        unused = [layer.name for layer in layers if layer.name not in observers]
        if unused:
            raise ValueError(
                f"layer {unused[0]!r} was never called: it is part of the model "
                "but not on the way from its inputs to its outputs. Remove it."
            )
        rank = _ranker(model, layers, images, verbose)
        decided = []
        for layer in layers:
            observer = observers[layer.name]
            signed = _is_signed(layer, observer)
            steps = _steps(layer, observer, signed)
            scores = rank(layer, observer, signed, steps)
            decided.append(_finish(layer, observer, signed, steps, scores))
        for layer, calibration in zip(layers, decided, strict=True):
            layer.assign(calibration)


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
