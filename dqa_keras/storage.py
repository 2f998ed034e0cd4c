"""How many bits activations really take, measured on data.

What counts is what the codec writes for each image by itself in storage class
`residual`, to the byte (`packing.strips_sizes`): planes of n-bit base codes; blocks of
Huffman-coded residuals with the sizes of their streams; the bits that fill up the last
byte of each; and the plane that takes the place of a block that would not shrink. The
layer's residual table (mask and codeword lengths) is spread over the activations of one
input.

Not counted are scales, which any per-channel scheme has and which are constants of the
model, like a bias; nor a blob's header and directory (16 bytes and 4 for each strip),
which a runtime that keeps bare strips in its arena does without.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras import feeding, packing, tracing
from dqa_keras.layers import Quantizer, quantizer_layers
from dqa_keras.observers import decibels
from dqa_keras.tables import LayerTable


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


def _tap(tables: dict[str, LayerTable]) -> tracing.Tap:
    """Reports residuals of important channels, signal and noise energy, and values."""

    def residuals(layer: Quantizer, x: Any) -> Any:
        important = np.flatnonzero(tables[layer.name].mask)
        if layer.extra_bits == 0 or important.size == 0:
            return ops.cast(x[..., :0], "uint8")
        codes = ops.take(layer.codes(x), important, axis=-1)
        return ops.cast(ops.bitwise_and(codes, 2**layer.extra_bits - 1), "uint8")

    def measured(layer: Quantizer, inputs: Any) -> tuple[Any, Any]:
        x = ops.cast(inputs, "float32")
        outputs = layer.quantized(x)
        report = (
            residuals(layer, x),
            ops.sum(ops.square(x)),
            ops.sum(ops.square(x - outputs)),
            ops.size(x),
        )
        return report, ops.cast(outputs, layer.compute_dtype)

    return measured


class _Tally:
    """Sums over batches for one layer."""

    def __init__(self, table: LayerTable) -> None:
        self.table = table
        self.bits = self.values = 0
        self.signal = self.noise = 0.0

    def add(
        self, residual: NDArray[np.uint8], signal: Any, noise: Any, values: Any
    ) -> None:
        images, *axes, important = residual.shape
        rows = axes[0] if axes else 1
        symbols = int(np.prod(axes[1:], dtype=np.int64)) * important
        strips = packing.strips_sizes(
            residual.reshape(images, rows, symbols),
            self.table,
            int(values) // (images * rows),
        )
        self.bits += 8 * int(strips.sum())
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
    tallies = {name: _Tally(table) for name, table in tables.items()}
    observe = tracing.observing(model, _tap(tables))
    images = 0
    for x in feeding.observed(model, data, batch_size, verbose, "measure storage"):
        images += len(keras.tree.flatten(x)[0])
        for layer, result in observe(x):
            tallies[layer.name].add(*result)
    measured = {}
    for name, tally in tallies.items():
        bits = tally.bits
        if layers[name].extra_bits:
            bits += tally.table.storage_bits * images
        measured[name] = LayerStorage(
            bits=bits / tally.values,
            activations=tally.values // images,
            sqnr=decibels(tally.signal, tally.noise),
        )
    return Storage(measured)
