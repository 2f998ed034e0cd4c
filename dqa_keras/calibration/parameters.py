"""Decides ranges, important channels and codes from what was gathered.

observers -> ranges -> importance -> allocation or budget -> `Calibration`
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras.calibration import allocation, bit_allocation, ranges, ranking
from dqa_keras.calibration.checkpoint import Checkpoint
from dqa_keras.calibration.distribution import Team
from dqa_keras.calibration.observers import Observer, decibels
from dqa_keras.calibration.statistics import Gathered
from dqa_keras.calibration.trials import Trials
from dqa_keras.codec import huffman
from dqa_keras.graph import calls
from dqa_keras.layers import Calibration, Quantizer

# Images on which codes are tried. Where each has many outputs, as in segmentation, a
# trial costs more of them and each of them says more.
_TRIAL_IMAGES = 32
_DENSE_TRIAL_IMAGES = 12

# Of the ranges with the least squared error, which `clipping="output"` tries.
_FACTORS = np.array([1, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.35], np.float32)


def _is_greedy(layer: Quantizer) -> bool:
    return layer.extra_bits > 0 and layer.config.ranking == "greedy"


class _Chosen(NamedTuple):
    """n, m, important channels (C,) and the scale of each channel, float32 (C,)."""

    bits: int
    extra_bits: int
    mask: NDArray[np.bool_]
    scale: NDArray[np.float32]


class _Steps(NamedTuple):
    """The scale of each channel at n and at n + m bits, float32 (C,)."""

    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]

    def of(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The scales if the channels of a mask (..., C) are important."""
        return np.where(mask, self.fine, self.coarse)


def _ranker(
    layers: list[Quantizer], trials: Trials | None, verbose: int
) -> Callable[[Quantizer, Observer, bool, _Steps], NDArray[np.floating]]:
    """The function that scores the channels of a layer."""
    greedy = [layer for layer in layers if _is_greedy(layer)]
    progress = tqdm(
        total=ranking.trial_count(greedy),
        desc="rank channels",
        unit="trial",
        disable=None if verbose and greedy else True,
    )

    def rank(
        layer: Quantizer, observer: Observer, signed: bool, steps: _Steps
    ) -> NDArray[np.floating]:
        if not layer.extra_bits:
            return np.zeros(steps.fine.size)
        if trials is None or not _is_greedy(layer):
            scores = ranking.mse_scores(
                observer, steps, layer.bits, layer.extra_bits, signed
            )
            if layer.config.ranked_by in ("fisher", "output"):
                scores *= observer.sensitivity
            return scores

        def errors(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            return trials.errors(layer, masks, steps.of(masks), progress.update)

        return ranking.greedy_scores(errors, steps.fine.size)

    return rank


def _narrowed(
    trials: Trials, layer: Quantizer, mask: NDArray[np.bool_], scale: NDArray
) -> NDArray[np.float32]:
    """The scales, all times the factor that changes the model's output least."""
    scales = (_FACTORS[:, None] * scale).astype(np.float32)
    masks = np.broadcast_to(mask, scales.shape)
    return scales[np.argmin(trials.errors(layer, masks, scales))]


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
    chosen: _Chosen,
    scores: NDArray[np.floating],
) -> Calibration:
    """Counts and SQNR of one layer, from what was chosen for it."""
    bits, extra_bits, mask, scale = chosen
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
            base_counts += _counted(codes >> shift, counts, base_counts.size)
            if important:
                residual_counts += _counted(codes, counts, residual_counts.size)
            signal += float(np.sum(counts * side.values[rows] ** 2))
            noise += float(np.sum(counts * side.errors[rows] ** 2))
    return Calibration(
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
    """What the solver must know of a layer's activation."""
    activations = round(observer.values / images)
    if layer.config.ranked_by == "mse":
        channels = observer.maximum.size
        sensitivity = np.full(channels, activations / channels)
    else:
        sensitivity = observer.sensitivity / images
    return bit_allocation.Demand(
        observer,
        _is_signed(layer, observer),
        sensitivity,
        bit_allocation.strips_of(layer.activation_shape, activations),
        layer.config.entropy == "all",
    )


def _taken(demand: bit_allocation.Demand, calibration: Calibration) -> float:
    """Bits of one input that a layer outside the budget takes."""

    def coded(counts: NDArray[np.integer], share: float) -> float:
        mean = huffman.mean_length(counts, huffman.code_lengths(counts))
        return mean * share * demand.activations

    return bit_allocation.stored_bits(
        demand,
        (calibration.bits, calibration.extra_bits),
        int(calibration.mask.sum()),
        coded(calibration.base_counts, 1.0),
        coded(calibration.residual_counts, float(np.mean(calibration.mask))),
    )


def _spent(
    layers: list[Quantizer],
    sharing: list[Quantizer],
    gathered: Gathered,
    others: dict[str, Calibration],
) -> dict[str, Calibration]:
    """Calibrations of the layers that share a budget with all `others`."""
    demands = {
        layer.name: _demand(layer, gathered.observers[layer.name], gathered.images)
        for layer in layers
    }
    activations = sum(demand.activations for demand in demands.values())
    bits, kib = _the_only(
        "the budget",
        {(layer.config.budget_bits, layer.config.budget_kib) for layer in sharing},
    )
    total = kib * 8192 if bits is None else bits * activations
    total -= sum(_taken(demands[name], done) for name, done in others.items())
    choices = bit_allocation.solve([demands[layer.name] for layer in sharing], total)
    decided = {}
    for layer, choice in zip(sharing, choices, strict=True):
        demand = demands[layer.name]
        chosen = _Chosen(choice.bits, choice.extra_bits, choice.mask, choice.scale)
        decided[layer.name] = _finish(
            layer, demand.observer, demand.signed, chosen, demand.sensitivity
        )
    return decided


def _the_only(what: str, values: set[Any]) -> Any:
    """The one value that layers share, None if there is none."""
    if len(values) > 1:
        raise ValueError(
            f"layers of one model must agree on {what}. "
            f"Received: {' and '.join(sorted(map(str, values)))}"
        )
    return next(iter(values), None)


def _counted(
    codes: NDArray[np.int64], counts: NDArray[np.float64], symbols: int
) -> NDArray[np.int64]:
    """How often each value of the lowest bits of the codes occurs."""
    low = codes.ravel() & (symbols - 1)
    return np.bincount(low, counts.ravel(), minlength=symbols).astype(np.int64)


def _is_tried(layers: list[Quantizer]) -> bool:
    """Whether codes are tried against the model's output."""
    return any(
        _is_greedy(layer) or layer.config.clipping == "output" for layer in layers
    )


def images_needed(model: keras.Model, layers: list[Quantizer]) -> int:
    """How many images `decide` tries codes on."""
    if not _is_tried(layers):
        return 0
    is_dense = calls.is_known(model) and any(len(y.shape) > 2 for y in model.outputs)
    return _DENSE_TRIAL_IMAGES if is_dense else _TRIAL_IMAGES


def loss_needed(layers: list[Quantizer]) -> Literal["fisher", "output"] | None:
    """The loss whose sensitivities `decide` needs, if any.

    Raises:
        ValueError: If layers of one model ask for two.
    """
    rankings = {
        layer.config.ranked_by
        for layer in layers
        if layer.extra_bits > 0 or layer.config.has_budget
    }
    return _the_only("the ranking", rankings & {"fisher", "output"})


def decide(
    model: keras.Model,
    layers: list[Quantizer],
    gathered: Gathered,
    verbose: int,
    team: Team,
    checkpoint: Checkpoint,
) -> dict[str, Calibration]:
    """The calibration of every layer.

    Args:
        model: Keras model whose quantizers let everything pass.
        layers: Its quantizers.
        gathered: `Gathered` over the calibration data.
        verbose: Integer. `0` hides the progress bar.
        team: `Team` of the workers that share the trials.
        checkpoint: `Checkpoint` that keeps what trials found.

    Returns:
        A dictionary from quantizer name to `Calibration`.

    Raises:
        ValueError: If layers disagree on the budget or it cannot be met.
        LostWorkerError: If another worker is gone.
    """
    trials = (
        Trials(model, gathered.kept, team, checkpoint, gathered.progress)
        if _is_tried(layers)
        else None
    )
    rank = _ranker(layers, trials, verbose)
    decided = {}
    for layer in layers:
        if layer.config.has_budget:
            continue
        observer = gathered.observers[layer.name]
        signed = _is_signed(layer, observer)
        layer.signed.assign(signed)
        steps = _steps(layer, observer, signed)
        scores = rank(layer, observer, signed, steps)
        mask = allocation.top_share(scores, layer.config.important_fraction)
        mask &= layer.extra_bits > 0
        scale = steps.of(mask)
        if trials is not None and layer.config.clipping == "output":
            scale = _narrowed(trials, layer, mask, scale)
        chosen = _Chosen(layer.bits, layer.extra_bits, mask, scale)
        decided[layer.name] = _finish(layer, observer, signed, chosen, scores)
    sharing = [layer for layer in layers if layer.config.has_budget]
    if sharing:
        decided.update(_spent(layers, sharing, gathered, decided))
    return decided
