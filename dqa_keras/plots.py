"""Pictures of quantized models, as matplotlib functions that return their axes."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from dqa_keras.layers import Quantizer
from dqa_keras.storage import Storage

# Okabe and Ito's colours, told apart by colour-blind readers; markers differ as well.
_STYLES = {
    "direct": ("#0072B2", "o"),
    "noisyquant": ("#009E73", "s"),
    "dqa": ("#D55E00", "D"),
}


def new_axes(width: float = 6.4, height: float = 4.0) -> Axes:
    """Empty axes on a figure of its own, in inches."""
    figure = matplotlib.figure.Figure((width, height), layout="constrained")
    return figure.subplots()


def accuracy_against_bits(
    points: Mapping[str, Sequence[tuple[float, float]]],
    float_accuracy: float,
    axes: Axes | None = None,
) -> Axes:
    """Accuracy against measured stored bits, one line a method.

    Args:
        points: For each method, (stored bits per activation, accuracy in percent).
        float_accuracy: Float. Accuracy of the unquantized model, in percent.
        axes: Axes to draw on. Defaults to new ones.

    Returns:
        The axes.
    """
    axes = axes or new_axes()
    axes.axhline(
        float_accuracy,
        color="#555555",
        linestyle="--",
        linewidth=1,
        label=f"float32: {float_accuracy:.2f} %",
    )
    for method, values in points.items():
        color, marker = _STYLES.get(method, ("#000000", "x"))
        bits, accuracy = zip(*sorted(values), strict=True)
        axes.plot(bits, accuracy, marker=marker, color=color, label=method)
    axes.set_xlabel("stored bits per activation (measured)")
    axes.set_ylabel("accuracy on the test split (%)")
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return axes


def layer_storage(storage: Storage, axes: Axes | None = None) -> Axes:
    """KiB that each quantized activation of one input takes, beside int8.

    Args:
        storage: What `dqa_keras.storage_bits` measured.
        axes: Axes to draw on. Defaults to new ones.

    Returns:
        The axes.
    """
    names = list(storage.layers)
    axes = axes or new_axes(height=1.2 + 0.28 * len(names))
    rows = np.arange(len(names))
    int8 = [layer.activations / 1024 for layer in storage.layers.values()]
    stored = [layer.kib for layer in storage.layers.values()]
    axes.barh(rows, int8, color="#BBBBBB", label="int8")
    axes.barh(rows, stored, height=0.5, color="#0072B2", label="stored")
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xlabel("KiB for one input")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    return axes


def channel_importance(layers: Sequence[Quantizer], axes: Axes | None = None) -> Axes:
    """Ranking score of every channel; important ones are filled.

    Args:
        layers: Calibrated quantizing layers.
        axes: Axes to draw on. Defaults to new ones.

    Returns:
        The axes.
    """
    axes = axes or new_axes(height=1.2 + 0.28 * len(layers))
    for row, layer in enumerate(layers):
        scores = np.asarray(layer.importance, np.float64)
        area = 4 + 60 * np.abs(scores) / max(np.abs(scores).max(), 1e-30)
        mask = np.asarray(layer.mask)
        columns = np.arange(scores.size)
        for chosen, color in ((mask, "#D55E00"), (~mask, "#BBBBBB")):
            axes.scatter(
                columns[chosen], np.full(chosen.sum(), row), area[chosen], color
            )
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlabel("channel (area: score; coloured: gets the extra bits)")
    return axes
