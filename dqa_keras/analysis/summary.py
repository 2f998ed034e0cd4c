"""The per-layer table of a quantized model, in the style of `keras.Model.summary`.

Sizes are in KiB (1024 bytes) for one input and hold the quantized activations only,
each counted once: what these tensors take when stored, not a runtime's peak.
"""

import io
import sys

import keras
import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from dqa_keras.analysis.storage import Storage, expected_bits
from dqa_keras.analysis.text import printable
from dqa_keras.graph.insertion import skipped
from dqa_keras.layers import Quantizer, quantizer_layers

_COLUMNS = (
    "Layer (type)", "Shape", "Bits", "Extra", "Important", "Scale", "Stored bits",
    "KiB", "SQNR dB",
)  # fmt: skip
_LEFT = 2  # columns of text; the others are numbers
_WIDEST = 1000


def _row(layer: Quantizer, storage: Storage | None) -> tuple[str, ...]:
    shape = tuple(layer.activation_shape) if layer.built else ()
    start = (
        f"{layer.name} ({type(layer).__name__})",
        " x ".join(str(size or "?") for size in shape),
        str(layer.bits),
        str(layer.extra_bits),
    )
    if not layer.is_calibrated:
        return (*start, *"-----")
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
    waiting = [layer.name for layer in layers if not layer.is_calibrated]
    if waiting:
        return [
            f"Not calibrated yet: {', '.join(waiting)}. Values pass through unchanged; "
            "totals follow."
        ]
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


def _rendered(table: rich.table.Table) -> str:
    """The table as text, as wide as it needs or as the terminal has room for."""
    # Keras writes through this too, and it wraps cells where lines are too narrow.
    width = rich.console.Console().width if sys.stdout.isatty() else _WIDEST
    console = rich.console.Console(
        file=io.StringIO(), width=width, color_system=None, legacy_windows=False
    )
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _table(rows: list[tuple[str, ...]]) -> rich.table.Table:
    columns = (
        rich.table.Column(name, justify="left" if index < _LEFT else "right")
        for index, name in enumerate(_COLUMNS)
    )
    table = rich.table.Table(*columns, show_lines=True, box=rich.box.HEAVY_HEAD)
    for row in rows:
        table.add_row(*(rich.markup.escape(printable(cell)) for cell in row))
    return table


def summary(model: keras.Model, storage: Storage | None = None) -> str:
    """Prints the per-layer table and returns it.

    Args:
        model: Keras model with quantizers.
        storage: What `storage_bits` measured. By default the columns "Stored bits" and
            "SQNR" show what calibration saw.

    Returns:
        The text that was printed.

    Example:
    >>> import keras
    >>> import dqa_keras as dqa
    >>> model = keras.Sequential([keras.Input((4,)), dqa.layers.DQA(name="codes")])
    >>> text = dqa.summary(model)
    Quantizers of "sequential..."
    ┏━━━━━━━━━━━━━...┓
    ┃ Layer (type) ┃ Shape ┃ Bits ┃ Extra ┃ ...
    ┡━━━━━━━━━━━━━...┩
    │ codes (DQA)  │ 4     │    4 │     2 │ ...
    └─────────────...┘
    Not calibrated yet: codes. Values pass through unchanged; totals follow.
    """
    layers = quantizer_layers(model)
    lines = [printable(f'Quantizers of "{model.name}"')]
    if layers:
        lines.append(_rendered(_table([_row(layer, storage) for layer in layers])))
        lines += map(printable, _totals(layers, storage))
    else:
        lines.append("There are none.")
    left_out = skipped(model)
    if left_out:
        lines += [
            "Not quantized:",
            *(printable(f"  {s.name}: {s.reason}") for s in left_out),
        ]
    text = "\n".join(lines)
    print(text)
    return text
