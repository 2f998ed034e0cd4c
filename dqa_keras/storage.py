"""How many bits activations really take, measured on data.

Counted for each stored activation: its n-bit base code; for values of important
channels the Huffman codeword of the residual; and the layer's residual table (mask and
codeword lengths), spread over the activations of one input. Scales are not counted: any
per-channel scheme has them, and they are constants of the model, like a bias.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras import feeding, tracing
from dqa_keras.layers import Quantizer, quantizer_layers
from dqa_keras.observers import decibels


@dataclasses.dataclass(frozen=True)
class LayerStorage:
    """Storage of one quantized activation, measured.

    Args:
        bits: Float. Stored bits per activation, table included.
        activations: Integer. Activations of one input.
        sqnr: Float, dB. Signal to quantization noise.
    """

    bits: float
    activations: int
    sqnr: float

    @property
    def kib(self) -> float:
        """KiB that the activations of one input take."""
        return self.bits * self.activations / 8192


@dataclasses.dataclass(frozen=True)
class Storage:
    """Storage of a whole model, measured.

    Args:
        layers: Dictionary from quantizer name to `LayerStorage`.
    """

    layers: dict[str, LayerStorage]

    @property
    def total(self) -> float:
        """Stored bits per activation over all quantized activations of one input."""
        return 8192 * self.kib / self.activations

    @property
    def activations(self) -> int:
        """Quantized activations of one input."""
        return sum(layer.activations for layer in self.layers.values())

    @property
    def kib(self) -> float:
        """KiB that all quantized activations of one input take."""
        return sum(layer.kib for layer in self.layers.values())


def _measured(layer: Quantizer, inputs: Any) -> tuple[Any, Any]:
    """Residual counts (2^m,), signal and noise energy, values; quantizes."""
    x = ops.cast(inputs, "float32")
    outputs = layer.quantized(x)
    residual = ops.bitwise_and(layer.codes(x), 2**layer.extra_bits - 1)
    important = ops.cast(layer.mask, "int32")
    counts = [
        ops.sum(ops.cast(ops.equal(residual, value), "int32") * important)
        for value in range(2**layer.extra_bits)
    ]
    report = (
        ops.stack(counts),
        ops.sum(ops.square(x)),
        ops.sum(ops.square(x - outputs)),
        ops.size(x),
    )
    return report, ops.cast(outputs, layer.compute_dtype)


class _Tally:
    """Sums over batches for one layer."""

    def __init__(self, symbols: int) -> None:
        self.residuals: NDArray[np.int64] = np.zeros(symbols, np.int64)
        self.signal = self.noise = 0.0
        self.values = 0

    def add(self, counts: Any, signal: Any, noise: Any, values: Any) -> None:
        self.residuals += counts
        self.signal += float(signal)
        self.noise += float(noise)
        self.values += int(values)


def storage_bits(
    model: keras.Model, data: Any, *, batch_size: int = 32, verbose: int = 0
) -> Storage:
    """Measures stored bits per activation on data.

    Args:
        model: Keras model with calibrated quantizers.
        data: Inputs, as for `calibrate`; labels are not used.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.
        verbose: Integer. `0` hides the progress bar. Defaults to `0`.

    Returns:
        A `Storage`: `.total` (float) and `.layers` (by name).

    Raises:
        ValueError: If the model has no quantizing layer, one of them is not calibrated
            or the data does not fit the model.

    Example:
    >>> import keras, numpy as np
    >>> import dqa_keras as dqa
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, activation="relu", name="hidden"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> x = np.random.default_rng(0).random((64, 4))
    >>> quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4, method="direct"))
    >>> dqa.calibrate(quantized, x, verbose=0)
    >>> storage = dqa.storage_bits(quantized, x)
    >>> storage.total, sorted(storage.layers)
    (4.0, ['hidden_direct'])
    """
    layers = {layer.name: layer for layer in quantizer_layers(model)}
    if not layers:
        raise ValueError(
            f"model {model.name!r} has no quantizing layer, so nothing is stored in "
            "fewer bits. Use dqa_keras.quantize_model(model, config) first."
        )
    tables = {name: layer.table() for name, layer in layers.items()}
    tallies = {name: _Tally(2**layer.extra_bits) for name, layer in layers.items()}
    observe = tracing.observing(model, _measured)
    images = 0
    for x in feeding.observed(model, data, batch_size, verbose, "measure storage"):
        images += len(keras.tree.flatten(x)[0])
        for layer, result in observe(x):
            tallies[layer.name].add(*result)
    measured = {}
    for name, layer in layers.items():
        tally, table = tallies[name], tables[name]
        residual_bits = float(tally.residuals @ table.residual_lengths.astype(int))
        if layer.extra_bits:
            residual_bits += table.storage_bits * images
        measured[name] = LayerStorage(
            bits=layer.bits + residual_bits / tally.values,
            activations=tally.values // images,
            sqnr=decibels(tally.signal, tally.noise),
        )
    return Storage(measured)
