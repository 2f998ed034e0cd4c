"""Everything that a report shows about one quantized model, as plain values."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dqa_keras.analysis import baselines
from dqa_keras.analysis.accuracy import Tally
from dqa_keras.analysis.memory import Timeline, timeline
from dqa_keras.analysis.storage import Storage, storage_bits
from dqa_keras.backend.compile import compiled
from dqa_keras.calibration import output_noise, statistics
from dqa_keras.calibration.histograms import Histogram, histogram
from dqa_keras.calibration.observers import decibels
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.graph.insertion import Skipped, skipped
from dqa_keras.layers import quantizer_layers

PARTS = (
    "scores", "layers", "errors", "memory", "choices", "channels", "histograms",
)  # fmt: skip

BASELINE_BITS = range(2, 9)

# Test images on which quantizers are tried one at a time.
_TRIAL_IMAGES = 32


@dataclasses.dataclass(frozen=True)
class Layer:
    """One quantized activation.

    Args:
        table: `LayerTable`. Name, bits, mask, scale.
        activations: Integer. Values of one input; 0 if not known.
        stored_bits: Float. Measured stored bits a value, or `None`.
        sqnr: Float, dB. Signal to quantization noise of this activation, or `None`.
        output_sqnr: Float, dB. That of the model's output when this is the only
            quantizer, or `None`.
        importance: Float array (C,). Ranking scores of the channels, or `None`.
        histogram: `Histogram` of the values, or `None`.
    """

    table: LayerTable
    activations: int
    stored_bits: float | None = None
    sqnr: float | None = None
    output_sqnr: float | None = None
    importance: NDArray[np.floating] | None = None
    histogram: Histogram | None = None


@dataclasses.dataclass(frozen=True)
class Scores:
    """How good the model is, against stored bits.

    Args:
        measure: String. What is measured, with its unit, such as `"accuracy (%)"`.
        images: Integer. Images it was measured on.
        points: Dictionary from method to (stored bits, score).
        this: Pair. Stored bits (or `None`) and score of the model itself.
        unquantized: Float. The score without quantization, or `None`.
    """

    measure: str
    images: int
    points: Mapping[str, list[tuple[float, float]]]
    this: tuple[float | None, float]
    unquantized: float | None


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a report shows.

    Args:
        name: String. What the model is called.
        layers: List of `Layer`, in the order that they run.
        scores: `Scores`, or `None`.
        timeline: `Timeline` of live activations, or `None`.
        output_sqnr: Float, dB. SQNR of the output with all quantizers, or `None`.
        skipped: What got no quantizer, and why.
        absent: Dictionary from a part of the report (`PARTS`) to why it is not there,
            or not whole.
        notes: Sentences on how the figures came about.
        choices: Pairs of time and bytes, for each plan that a packed export chooses
            among; time is over that of the fastest, which comes first.
    """

    name: str
    layers: list[Layer]
    scores: Scores | None
    timeline: Timeline | None
    output_sqnr: float | None
    skipped: tuple[Skipped, ...] = ()
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    choices: Sequence[tuple[float, int]] = ()

    @property
    def activations(self) -> int:
        """Quantized values of one input."""
        return sum(layer.activations for layer in self.layers)

    @property
    def stored_bits(self) -> float | None:
        """Stored bits a value over all layers, or None if one of them is not known."""
        total = 0.0
        for layer in self.layers:
            if layer.stored_bits is None or not layer.activations:
                return None
            total += layer.stored_bits * layer.activations
        return total / self.activations if self.layers else None


Run = Callable[[Any], Any]


def _first(outputs: Any) -> NDArray[np.floating]:
    return keras.ops.convert_to_numpy(keras.tree.flatten(outputs)[0])


def score(run: Run, data: Iterable[Any]) -> float:
    """Top-1 accuracy or mean IoU of a function on batches of (x, y), in percent."""
    tally: Tally | None = None
    for x, y in data:
        outputs = _first(run(x))
        tally = tally or Tally(outputs.shape[-1])
        tally.add(outputs, np.asarray(y))
    return tally.percent() if tally else 0.0


def _similarity(run: Run, plain: list[NDArray[np.floating]], data: Any) -> float:
    """SQNR of a function's output against that of the unquantized model, in dB."""
    signal = noise = 0.0
    for batch, wanted in zip(data, plain, strict=True):
        outputs = _first(run(keras.utils.unpack_x_y_sample_weight(batch)[0]))
        signal += float(np.sum(wanted.astype(np.float64) ** 2))
        noise += float(np.sum((outputs.astype(np.float64) - wanted) ** 2))
    return decibels(signal, noise)


def _has_labels(data: Any) -> tuple[bool, bool]:
    """Whether batches have labels, and whether these are masks."""
    y = keras.utils.unpack_x_y_sample_weight(next(iter(data)))[1]
    return y is not None, y is not None and np.ndim(y) > 1


def _scores(
    model: keras.Model,
    observers: Mapping[str, Any],
    test: Any,
    storage: Storage,
    images: int,
) -> Scores:
    labelled, masks = _has_labels(test)
    layers = quantizer_layers(model)
    run = compiled(lambda x: model(x, training=False))
    plain: list[NDArray[np.floating]] = []
    progress = tqdm(
        total=len(BASELINE_BITS) + 2, desc="accuracy", unit="model", disable=None
    )

    def measured(run: Run) -> float:
        value = score(run, test) if labelled else _similarity(run, plain, test)
        progress.update()
        return value

    with output_noise.only(layers, []):
        if labelled:
            unquantized = measured(run)
        else:
            unquantized = None
            batches = (keras.utils.unpack_x_y_sample_weight(b)[0] for b in test)
            plain += [_first(run(x)) for x in batches]
    this = measured(run)
    direct = baselines.direct(model, observers, BASELINE_BITS, measured)
    progress.close()
    name = "mean IoU (%)" if masks else "accuracy (%)"
    return Scores(
        measure=name if labelled else "SQNR of the output (dB)",
        images=images,
        points={"direct": [(float(bits), value) for bits, value in direct.items()]},
        this=(storage.total, this),
        unquantized=unquantized,
    )


def _taken(data: Any, images: int) -> NDArray:
    """The first images of batches, as one array."""
    parts: list[NDArray] = []
    for batch in data:
        parts.append(np.asarray(keras.utils.unpack_x_y_sample_weight(batch)[0]))
        if sum(map(len, parts)) >= images:
            break
    return np.concatenate(parts)[:images]


def examine(model: keras.Model, calibration: Any, test: Any) -> Findings:
    """Measures everything that a report shows of a Keras model.

    Args:
        model: Functional or Sequential Keras model with one input and calibrated
            quantizers; it is left as it was.
        calibration: Batches that histograms and the baselines' ranges come from.
        test: Batches of (x, y), or of x alone, that everything else is measured on;
            read several times.

    Returns:
        `Findings`.

    Raises:
        ValueError: If a layer is not calibrated, or the data does not fit the model.
    """
    layers = quantizer_layers(model)
    storage = storage_bits(model, test, verbose=1)
    observers = statistics.collect(model, calibration, 32, 1, 0, None).observers
    images = sum(len(keras.tree.flatten(batch)[0]) for batch in test)
    few = _taken(test, _TRIAL_IMAGES)
    noise = output_noise.output_sqnr(model, few, batch_size=8, verbose=1)
    scores = _scores(model, observers, test, storage, images)
    return Findings(
        name=model.name,
        layers=[
            Layer(
                table=layer.table(),
                activations=storage.layers[layer.name].activations,
                stored_bits=storage.layers[layer.name].bits,
                sqnr=storage.layers[layer.name].sqnr,
                output_sqnr=noise.layers[layer.name],
                importance=np.asarray(layer.importance, np.float64),
                histogram=histogram(layer.table(), observers[layer.name]),
            )
            for layer in layers
        ],
        scores=scores,
        timeline=timeline(model, storage, [few.shape[1:]]),
        output_sqnr=noise.total,
        skipped=skipped(model),
        notes=(
            f"Stored bits and SQNR: {images:,} test images, in Keras.",
            f"SQNR of the output: {len(few)} of them.",
            "Histograms and the ranges of the direct baselines: the calibration "
            "images; at most 128 positions of each.",
        ),
    )
