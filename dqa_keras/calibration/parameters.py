"""Quantization parameters from statistics.

observers -> ranges -> ranking -> allocation or bit allocation -> parameters
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras.calibration import (
    allocation,
    bit_allocation,
    ranges,
    ranking,
    sensitivity,
)
from dqa_keras.calibration.checkpoint import Checkpoint
from dqa_keras.calibration.distribution import WorkerGroup
from dqa_keras.calibration.observers import Observer, decibels
from dqa_keras.calibration.statistics import Statistics
from dqa_keras.calibration.trials import Trials
from dqa_keras.codec import huffman
from dqa_keras.config import MAX_BITS
from dqa_keras.graph import calls
from dqa_keras.layers import QuantizationParameters, Quantizer
from dqa_keras.quantizers import Signed

# Images on which codes are tried. Where each has many outputs, as in segmentation, a
# trial costs more of them and each of them says more.
_TRIAL_IMAGES = 32
_DENSE_TRIAL_IMAGES = 12

# Factors by which `clipping="output"` tries to change the ranges of `"mse"`.
_FACTORS = np.array([1, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.35], np.float32)


def _is_greedy(layer: Quantizer) -> bool:
    return layer.extra_bits > 0 and layer.config.ranking == "greedy"


class _Choice(NamedTuple):
    """n, m, important channels (C,) and the scale of each channel, float32 (C,)."""

    bits: int
    extra_bits: int
    mask: NDArray[np.bool_]
    scale: NDArray[np.float32]


class _Scales(NamedTuple):
    """The scale of each channel at n and at n + m bits, float32 (C,)."""

    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]

    def of(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The scales where the channels of a mask (..., C) are important."""
        return np.where(mask, self.fine, self.coarse)


def _ranker(
    layers: list[Quantizer], trials: Trials | None, verbose: int
) -> Callable[[Quantizer, Observer, Signed, _Scales], NDArray[np.floating]]:
    """A function that scores the channels of a layer."""
    greedy = [layer for layer in layers if _is_greedy(layer)]
    progress = tqdm(
        total=ranking.trial_count(greedy),
        desc="rank channels",
        unit="trial",
        disable=None if verbose and greedy else True,
    )

    def rank(
        layer: Quantizer, observer: Observer, signed: Signed, scales: _Scales
    ) -> NDArray[np.floating]:
        if not layer.extra_bits:
            return np.zeros(scales.fine.size)
        if trials is None or not _is_greedy(layer):
            scores = ranking.mse_scores(
                observer, scales, layer.bits, layer.extra_bits, signed
            )
            if layer.config.ranked_by in ("fisher", "output"):
                scores *= observer.sensitivity
            return scores

        def errors(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            return trials.errors(layer, masks, scales.of(masks), progress.update)

        return ranking.greedy_scores(errors, scales.fine.size)

    return rank


def _rescaled(
    trials: Trials, layer: Quantizer, mask: NDArray[np.bool_], scale: NDArray
) -> NDArray[np.float32]:
    """The scales times the one factor that changes the model's output least."""
    tried = (_FACTORS[:, None] * scale).astype(np.float32)
    masks = np.broadcast_to(mask, tried.shape)
    return tried[np.argmin(trials.errors(layer, masks, tried))]


def _scales(layer: Quantizer, observer: Observer, signed: Signed) -> _Scales:
    return _Scales(
        ranges.scales(observer, layer.bits, signed, layer.config),
        ranges.scales(observer, layer.bits + layer.extra_bits, signed, layer.config),
    )


def _parameters(
    layer: Quantizer,
    observer: Observer,
    signed: Signed,
    choice: _Choice,
    scores: NDArray[np.floating],
) -> QuantizationParameters:
    """The parameters of one layer, with counts and SQNR of its choice."""
    bits, extra_bits, mask, scale = choice
    base_counts = np.zeros(2**bits, np.int64)
    residual_counts = np.zeros(2**extra_bits, np.int64)
    signal = noise = 0.0
    for important, shift in ((False, 0), (True, extra_bits)):
        rows = mask == important
        for side in ranges.histogram_codes(
            observer, scale, bits + shift, signed, layer.offset(scale)
        ):
            counts = side.counts[rows].astype(np.float64)
            codes = side.codes[rows]
            base_counts += _symbol_counts(codes >> shift, counts, base_counts.size)
            if important:
                residual_counts += _symbol_counts(codes, counts, residual_counts.size)
            signal += float(np.sum(counts * side.values[rows] ** 2))
            noise += float(np.sum(counts * side.errors[rows] ** 2))
    return QuantizationParameters(
        bits=bits,
        extra_bits=extra_bits,
        scale=scale,
        mask=mask,
        signed=signed,
        residual_counts=residual_counts,
        base_counts=base_counts,
        importance=scores,
        sqnr=decibels(signal, noise),
    )


def _demand(layer: Quantizer, observer: Observer, images: int) -> bit_allocation.Demand:
    """The solver's input for a layer's activation."""
    activations = round(observer.values / images)
    if layer.config.ranked_by == "mse":
        channels = observer.maximum.size
        weight = np.full(channels, activations / channels)
    else:
        weight = sensitivity.dampened(observer.sensitivity / images)
    return bit_allocation.Demand(
        observer,
        {
            bits: ranges.signedness(observer, bits, 0, layer.config)
            for bits in range(1, MAX_BITS + 1)
        },
        weight,
        bit_allocation.strips_of(layer.activation_shape, activations),
        layer.config.entropy == "all",
    )


def _expected_bits(
    demand: bit_allocation.Demand, parameters: QuantizationParameters
) -> float:
    """Bits of one input that a layer with known parameters takes."""

    def coded(counts: NDArray[np.integer], share: float) -> float:
        mean = huffman.mean_length(counts, huffman.code_lengths(counts))
        return mean * share * demand.activations

    return bit_allocation.expected_bits(
        demand,
        (parameters.bits, parameters.extra_bits),
        int(parameters.mask.sum()),
        coded(parameters.base_counts, 1.0),
        coded(parameters.residual_counts, float(np.mean(parameters.mask))),
    )


def _share_budget(
    layers: list[Quantizer],
    sharing: list[Quantizer],
    statistics: Statistics,
    others: dict[str, QuantizationParameters],
) -> dict[str, QuantizationParameters]:
    """Parameters of the layers that share a budget with all `others`."""
    demands = {
        layer.name: _demand(layer, statistics.observers[layer.name], statistics.images)
        for layer in layers
    }
    activations = sum(demand.activations for demand in demands.values())
    bits, kib = _agreed(
        "the budget",
        {(layer.config.budget_bits, layer.config.budget_kib) for layer in sharing},
    )
    total = kib * 8192 if bits is None else bits * activations
    total -= sum(_expected_bits(demands[name], known) for name, known in others.items())
    choices = bit_allocation.solve([demands[layer.name] for layer in sharing], total)
    parameters = {}
    for layer, choice in zip(sharing, choices, strict=True):
        demand = demands[layer.name]
        chosen = _Choice(choice.bits, choice.extra_bits, choice.mask, choice.scale)
        signed = demand.signed_at((choice.bits, choice.extra_bits))
        parameters[layer.name] = _parameters(
            layer, demand.observer, signed, chosen, demand.sensitivity
        )
    return parameters


def _agreed(what: str, values: set[Any]) -> Any:
    """The value that all layers agree on, None if there is none."""
    if len(values) > 1:
        raise ValueError(
            f"layers of one model must agree on {what}. "
            f"Received: {' and '.join(sorted(map(str, values)))}"
        )
    return next(iter(values), None)


def _symbol_counts(
    codes: NDArray[np.int64], counts: NDArray[np.float64], symbols: int
) -> NDArray[np.int64]:
    """How often each value of the lowest bits of the codes occurs."""
    low = codes.ravel() & (symbols - 1)
    return np.bincount(low, counts.ravel(), minlength=symbols).astype(np.int64)


def _needs_trials(layers: list[Quantizer]) -> bool:
    """Whether trial codes are compared by the model's output."""
    return any(
        _is_greedy(layer) or layer.config.clipping == "output" for layer in layers
    )


def images_needed(model: keras.Model, layers: list[Quantizer]) -> int:
    """How many images `compute` tries codes on."""
    if not _needs_trials(layers):
        return 0
    is_dense = calls.has_graph(model) and any(len(y.shape) > 2 for y in model.outputs)
    return _DENSE_TRIAL_IMAGES if is_dense else _TRIAL_IMAGES


def loss_needed(layers: list[Quantizer]) -> Literal["fisher", "output"] | None:
    """The loss whose sensitivities `compute` needs, if any.

    Raises:
        ValueError: If layers of one model ask for two.
    """
    rankings = {
        layer.config.ranked_by
        for layer in layers
        if layer.extra_bits > 0 or layer.config.has_budget
    }
    return _agreed("the ranking", rankings & {"fisher", "output"})


def compute(
    model: keras.Model,
    layers: list[Quantizer],
    statistics: Statistics,
    verbose: int,
    workers: WorkerGroup,
    checkpoint: Checkpoint,
) -> dict[str, QuantizationParameters]:
    """The quantization parameters of every layer.

    Args:
        model: Keras model whose quantizers pass everything through.
        layers: Its quantizers.
        statistics: `Statistics` of the calibration data.
        verbose: Integer. `0` hides the progress bar.
        workers: `WorkerGroup` that shares the trials.
        checkpoint: `Checkpoint` that keeps the errors of trials.

    Returns:
        A dictionary from quantizer name to `QuantizationParameters`.

    Raises:
        ValueError: If layers disagree on the budget or it cannot be met.
        LostWorkerError: If another worker is gone.
    """
    trials = (
        Trials(model, statistics.sample, workers, checkpoint, statistics.progress)
        if _needs_trials(layers)
        else None
    )
    rank = _ranker(layers, trials, verbose)
    parameters = {}
    for layer in layers:
        if layer.config.has_budget:
            continue
        observer = statistics.observers[layer.name]
        signed = ranges.signedness(observer, layer.bits, layer.extra_bits, layer.config)
        layer.set_signed(signed)
        scales = _scales(layer, observer, signed)
        scores = rank(layer, observer, signed, scales)
        mask = allocation.top_share(scores, layer.config.important_fraction)
        mask &= layer.extra_bits > 0
        scale = scales.of(mask)
        if trials is not None and layer.config.clipping == "output":
            scale = _rescaled(trials, layer, mask, scale)
        chosen = _Choice(layer.bits, layer.extra_bits, mask, scale)
        parameters[layer.name] = _parameters(layer, observer, signed, chosen, scores)
    sharing = [layer for layer in layers if layer.config.has_budget]
    if sharing:
        parameters.update(_share_budget(layers, sharing, statistics, parameters))
    return parameters
