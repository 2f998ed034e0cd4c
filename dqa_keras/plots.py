"""Pictures of quantized models, as matplotlib functions that return their axes.

Each takes `axes` to draw on, or makes a figure of its own. Colours are Okabe and Ito's,
which colour-blind readers tell apart. Markers and line styles differ as well.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from dqa_keras.analysis.memory import FORMS, Timeline
from dqa_keras.analysis.storage import Storage
from dqa_keras.calibration.histograms import Histogram
from dqa_keras.layers import Quantizer

_BLUE, _GREEN, _ORANGE, _GREY = "#0072B2", "#009E73", "#D55E00", "#777777"
_STYLES = {
    "direct": (_BLUE, "o"),
    "noisyquant": (_GREEN, "s"),
    "dqa": (_ORANGE, "D"),
    "budget": ("#CC79A7", "^"),
    "entropy": ("#E69F00", "v"),
    "tuned": ("#56B4E9", "P"),
}
_FORM_STYLES = {
    "float32": (_GREY, ":"),
    "int8": (_BLUE, "--"),
    "stored": (_ORANGE, "-"),
}

# A score is shown in shades down to this power of two below the layer's largest.
_FAINTEST = -8


def new_axes(width: float = 6.4, height: float = 4.0) -> Axes:
    """Empty axes on a figure of its own, in inches."""
    figure = matplotlib.figure.Figure((width, height), layout="constrained")
    return figure.subplots()


def svg(axes: Axes) -> str:
    """The figure that `axes` are on, as an SVG element."""
    buffer = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes without a figure cannot be drawn"
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def accuracy_against_bits(
    points: Mapping[str, Sequence[tuple[float, float]]],
    float_accuracy: float,
    axes: Axes | None = None,
) -> Axes:
    """Accuracy against measured stored bits, one line for each method.

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
    axes.barh(rows, stored, height=0.5, color=_BLUE, label="stored")
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xlabel("KiB for one input")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    return axes


def channel_importance(layers: Sequence[Quantizer], axes: Axes | None = None) -> Axes:
    """Heat map of ranking scores: a row for each layer, a cell for each channel.

    Shades go by powers of two, from the layer's largest score down. A mark below a
    cell says that the channel gets the extra bits.

    Args:
        layers: Calibrated quantizing layers.
        axes: Axes to draw on. Defaults to new ones.

    Returns:
        The axes.
    """
    axes = axes or new_axes(height=1.5 + 0.28 * len(layers))
    widest = max(layer.mask.shape[0] for layer in layers)
    shades = np.full((len(layers), widest), np.nan)
    for row, layer in enumerate(layers):
        scores = np.maximum(np.asarray(layer.importance, np.float64), 0)
        largest = max(scores.max(), 1e-300)
        down = np.log2(np.maximum(scores / largest, 2.0**_FAINTEST))
        shades[row, : scores.size] = down
        chosen = np.flatnonzero(np.asarray(layer.mask))
        axes.plot(chosen, np.full(chosen.size, row + 0.38), "^", color=_ORANGE, ms=3)
    image = axes.imshow(
        shades, cmap="Blues", vmin=_FAINTEST, vmax=0, aspect="auto", origin="upper"
    )
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlim(-0.5, widest - 0.5)
    axes.set_xlabel("channel (triangle: gets the extra bits)")
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label("score, log2 of the share of the layer's largest")
    return axes


def histogram(values: Histogram, axes: Axes | None = None) -> Axes:
    """Values of one activation over the grid of its codes.

    Args:
        values: `dqa_keras.calibration.histograms.histogram(layer.table(), observer)`.
        axes: Axes to draw on. Defaults to new ones.

    Returns:
        The axes.
    """
    axes = axes or new_axes(height=3.0)
    fewest = min(values.grids)
    axes.vlines(
        values.grids[fewest],
        0,
        1,
        transform=axes.get_xaxis_transform(),
        color="#BBBBBB",
        linewidth=0.8,
        label=f"what {fewest} bits can store",
    )
    for bits, shares in values.shares.items():
        important = bits != fewest
        axes.stairs(
            100 * shares,
            values.edges,
            fill=not important,
            color=_ORANGE if important else _BLUE,
            alpha=1.0 if important else 0.4,
            label=f"channels of {bits} bits",
        )
    axes.set_yscale("log")
    axes.set_ylim(1e-2, 100)
    axes.set_xlabel("value, as a share of the largest that its channel's codes reach")
    axes.set_ylabel("share of the values (%)")
    axes.legend(loc="upper right", fontsize="small")
    return axes


def memory_timeline(timeline: Timeline, axes: Axes | None = None) -> Axes:
    """Live activations of one input, step by step, with the peaks marked.

    Args:
        timeline: `dqa_keras.analysis.memory.timeline(model, storage)`.
        axes: Axes to draw on. Defaults to new ones.

    Returns:
        The axes.
    """
    axes = axes or new_axes()
    unit, name = timeline.unit
    edges = np.arange(len(timeline.steps) + 1) + 0.5
    for form in FORMS:
        color, line = _FORM_STYLES[form]
        step, peak = timeline.peak(form)
        axes.stairs(
            timeline.bytes[form] / unit,
            edges,
            color=color,
            linestyle=line,
            linewidth=1.6,
            label=f"{form}: peak {peak / unit:.3g} {name} at {timeline.steps[step]}",
        )
        axes.plot(step + 1, peak / unit, "o", color=color)
    axes.set_xlabel("step")
    axes.set_ylabel(f"live activations of one input ({name})")
    axes.set_ylim(0, 1.35 * timeline.peak("float32")[1] / unit)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right", fontsize="small")
    return axes
