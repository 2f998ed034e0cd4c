"""How many bits activations really take, measured on data.

Each image counts with the bytes that the codec writes for it alone
(`sizes.strips_sizes`):

- planes of n-bit base codes; with `entropy="all"` blocks, as for residuals;
- blocks of Huffman-coded residuals, the sizes of their streams, and the bits that fill
  the last byte of each; a block that would not shrink counts as a plane;
- the layer's mask and codeword lengths, once for each input.

Scales are not counted: any per-channel scheme has them, and like a bias they are
constants of the model. A blob's header and directory (16 bytes, and 4 for each strip)
are not counted either: a runtime keeps bare strips in its arena.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from dqa_keras import quantizers
from dqa_keras.backend import data_adapter
from dqa_keras.calibration.observers import decibels
from dqa_keras.codec import huffman, sizes
from dqa_keras.codec.layer_table import LayerTable
from dqa_keras.graph import hooks
from dqa_keras.layers import QuantizationParameters, Quantizer, quantizer_layers


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


def _tap(tables: dict[str, LayerTable], every_base: bool) -> hooks.Tap:
    """Reports symbols, signal and noise energy, and the number of values."""

    def symbols(layer: Quantizer, x: Any) -> tuple[Any, Any]:
        """Base symbols if they are wanted, and residuals of important channels."""
        table = tables[layer.name]
        important = np.flatnonzero(table.mask)
        codes = layer.codes(x)
        base = codes[..., :0]
        if every_base or layer.config.entropy == "all":
            base, _ = quantizers.split(codes, table.mask, table.extra_bits)
            base = ops.bitwise_and(base, 2**table.bits - 1)
        residual = codes[..., :0]
        if table.extra_bits and important.size:
            residual = ops.take(codes, important, axis=-1)
            residual = ops.bitwise_and(residual, 2**table.extra_bits - 1)
        return ops.cast(base, "uint8"), ops.cast(residual, "uint8")

    def measured(layer: Quantizer, inputs: Any) -> tuple[Any, Any]:
        x = ops.cast(inputs, "float32")
        outputs = layer.quantized(x)
        report = (
            *symbols(layer, x),
            ops.sum(ops.square(x)),
            ops.sum(ops.square(x - outputs)),
            ops.size(x),
        )
        return report, ops.cast(outputs, layer.compute_dtype)

    return measured


class _Tally:
    """Sums over batches for one layer."""

    def __init__(self, layer: Quantizer) -> None:
        self._table = layer.table()
        self._code_base = layer.config.entropy == "all"
        self._bits = self._values = 0
        self._signal = self._noise = 0.0

    def add(
        self,
        base: NDArray[np.uint8],
        residual: NDArray[np.uint8],
        signal: Any,
        noise: Any,
        values: Any,
    ) -> None:
        images, *axes, important = residual.shape
        rows = axes[0] if axes else 1
        row_values = int(values) // (images * rows)
        pixels = int(np.prod(axes[1:], dtype=np.int64))
        strips = sizes.strips_sizes(
            residual.reshape(images, rows, pixels * important),
            self._table,
            row_values,
            base.reshape(images, rows, row_values) if self._code_base else None,
        )
        self._bits += 8 * int(strips.sum())
        self._signal += float(signal)
        self._noise += float(noise)
        self._values += int(values)

    def result(self, images: int) -> LayerStorage:
        bits = self._bits + table_bits(self._table, self._code_base) * images
        return LayerStorage(
            bits=bits / self._values,
            activations=self._values // images,
            sqnr=decibels(self._signal, self._noise),
        )


def table_bits(table: LayerTable, code_base: bool) -> int:
    """Bits of a table that only coding needs: mask and codeword lengths."""
    bits = table.storage_bits if table.extra_bits else 0
    return bits + (8 * table.base_lengths.size if code_base else 0)


def expected_bits(layer: Quantizer) -> float:
    """Stored bits per activation on calibration's data, without padding of streams."""
    table = layer.table()
    code_base = layer.config.entropy == "all"
    coded, residual = mean_code_bits(layer)
    bits = coded if code_base else float(table.bits)
    if table.extra_bits:
        bits += float(np.mean(table.mask)) * residual
    activations = int(np.prod(layer.activation_shape))
    return bits + (table_bits(table, code_base) / activations if activations else 0.0)


def mean_code_bits(layer: Quantizer) -> tuple[float, float]:
    """Bits that a base code and a residual take in the layer's Huffman codes.

    Args:
        layer: Calibrated quantizer.

    Returns:
        Their means over calibration's data.
    """
    table = layer.table()
    return (
        _mean_length(layer.base_counts, table.base_lengths),
        _mean_length(layer.residual_counts, table.residual_lengths),
    )


def _mean_length(counts: Any, lengths: NDArray[np.uint8]) -> float:
    return huffman.mean_length(ops.convert_to_numpy(counts)[: lengths.size], lengths)


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
    tallies = {name: _Tally(layer) for name, layer in layers.items()}
    observe = hooks.observing(model, _tap(tables, every_base=False))
    images = 0
    for x in data_adapter.observed(model, data, batch_size, verbose, "measure storage"):
        images += len(keras.tree.flatten(x)[0])
        for layer, result in observe(x):
            tallies[layer.name].add(*result)
    return Storage({name: tally.result(images) for name, tally in tallies.items()})


def counted(
    model: keras.Model, data: Any, *, batch_size: int = 32
) -> dict[str, QuantizationParameters]:
    """A model's quantization parameters, with its codes counted again on data.

    Args:
        model: Keras model with calibrated quantizers.
        data: Inputs, as for `calibrate`.
        batch_size: Integer. Images a step when `data` is arrays. Defaults to `32`.

    Returns:
        A dictionary from quantizer name to `QuantizationParameters`.

    Raises:
        ValueError: If a layer is not calibrated or the data does not fit the model.
    """
    layers = quantizer_layers(model)
    tables = {layer.name: layer.table() for layer in layers}
    observe = hooks.observing(model, _tap(tables, every_base=True))
    counts = {
        name: (
            np.zeros(table.base_lengths.size, np.int64),
            np.zeros(table.residual_lengths.size, np.int64),
        )
        for name, table in tables.items()
    }
    energies = {name: np.zeros(2) for name in tables}
    for x in data_adapter.observed(model, data, batch_size, 0, "count codes"):
        for layer, (base, residual, signal, noise, _) in observe(x):
            for sums, symbols in zip(counts[layer.name], (base, residual), strict=True):
                sums += np.bincount(symbols.ravel(), minlength=sums.size)
            energies[layer.name] += (signal, noise)
    return {
        layer.name: QuantizationParameters(
            bits=layer.bits,
            extra_bits=layer.extra_bits,
            scale=tables[layer.name].scale,
            mask=tables[layer.name].mask,
            signed=tables[layer.name].signed,
            base_counts=counts[layer.name][0],
            residual_counts=counts[layer.name][1],
            importance=ops.convert_to_numpy(layer.importance),
            sqnr=decibels(*energies[layer.name]),
        )
        for layer in layers
    }
