"""The per-layer report of a quantized model.

Sizes are in KiB (1024 bytes) for one input and hold the quantized activations only,
each counted once: what these tensors take when stored, not a runtime's peak.
"""

import keras
import numpy as np

from dqa_keras import huffman
from dqa_keras.conversion import skipped
from dqa_keras.layers import Quantizer, quantizer_layers
from dqa_keras.storage import Storage
from dqa_keras.text import table

_COLUMNS = (
    "layer", "shape", "bits", "extra", "important", "scale", "stored bits", "KiB",
    "SQNR dB",
)  # fmt: skip


def expected_bits(layer: Quantizer) -> float:
    """Stored bits per activation as calibration saw them."""
    if not layer.extra_bits:
        return float(layer.bits)
    entry = layer.table()
    counts = keras.ops.convert_to_numpy(layer.residual_counts)
    share = float(np.mean(entry.mask))
    bits = layer.bits + share * huffman.mean_length(counts, entry.residual_lengths)
    activations = int(np.prod(layer.activation_shape))
    return bits + (entry.storage_bits / activations if activations else 0.0)


def _row(layer: Quantizer, storage: Storage | None) -> tuple[str, ...]:
    shape = tuple(layer.activation_shape) if layer.built else ()
    start = (
        layer.name,
        " x ".join(str(size or "?") for size in shape),
        str(layer.bits),
        str(layer.extra_bits),
    )
    if not layer.is_calibrated:
        return (*start, "-", "-", "not calibrated: passes values through", "-", "-")
    entry = layer.table()
    measured = storage.layers[layer.name] if storage else None
    activations = measured.activations if measured else int(np.prod(shape))
    bits = measured.bits if measured else expected_bits(layer)
    sqnr = measured.sqnr if measured else float(keras.ops.convert_to_numpy(layer.sqnr))
    low, high = float(entry.scale.min()), float(entry.scale.max())
    return (
        *start,
        f"{int(entry.mask.sum())}/{entry.mask.size}",
        f"{low:.3g}" if low == high else f"{low:.3g}..{high:.3g}",
        f"{bits:.3f}",
        f"{bits * activations / 8192:.2f}" if activations else "?",
        f"{sqnr:.1f}",
    )


def _totals(layers: list[Quantizer], storage: Storage | None) -> list[str]:
    if not all(layer.is_calibrated for layer in layers):
        return ["Totals follow once every layer is calibrated."]
    if storage:
        activations, kib = storage.activations, storage.kib
    else:
        sizes = [int(np.prod(layer.activation_shape)) for layer in layers]
        if not all(sizes):
            return ["Sizes are unknown: pass storage=storage_bits(model, data)."]
        activations = sum(sizes)
        bits = [expected_bits(layer) for layer in layers]
        kib = float(np.dot(sizes, bits)) / 8192
    return [
        f"Quantized activations of one input: {activations:,}, "
        f"{8192 * kib / activations:.3f} stored bits each "
        f"({'measured' if storage else 'as in calibration'})",
        f"Stored: {kib:.1f} KiB; as int8: {activations / 1024:.1f} KiB; "
        f"as float32: {activations / 256:.1f} KiB",
    ]


def summary(model: keras.Model, storage: Storage | None = None) -> str:
    """Prints the per-layer report and returns it.

    Args:
        model: Keras model with quantizers.
        storage: What `storage_bits` measured. By default the columns "stored bits" and
            "SQNR" show what calibration saw.

    Returns:
        The text that was printed.

    Example:
    >>> import keras
    >>> import dqa_keras as dqa
    >>> model = keras.Sequential([keras.Input((4,)), dqa.layers.DQA(name="codes")])
    >>> text = dqa.summary(model)
    layer  shape  bits  extra ...
    ...
    codes  4      4     2      -          -      not calibrated: passes values ...
    Totals follow once every layer is calibrated.
    """
    layers = quantizer_layers(model)
    rows = [_COLUMNS, *(_row(layer, storage) for layer in layers)]
    lines = [table(rows)]
    lines += _totals(layers, storage) if layers else ["This model has no quantizers."]
    left_out = skipped(model)
    if left_out:
        lines += ["Not quantized:", *(f"  {s.name}: {s.reason}" for s in left_out)]
    text = "\n".join(lines)
    print(text)
    return text
