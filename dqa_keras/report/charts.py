"""Charts as SVG that follows the page: its style sheet holds every colour.

Sizes are in units of the view box; text of 12 units is legible at a phone's width.
"""

import html
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dqa_keras.analysis.memory import FORMS, Timeline
from dqa_keras.calibration.histograms import Histogram
from dqa_keras.report.findings import Scores

_STYLE = {"float32": "plain", "int8": "direct", "stored": "dqa"}


def escape(text: object) -> str:
    """Text for HTML."""
    return html.escape(str(text))


def _number(value: float) -> str:
    """A coordinate, in as few characters as a pixel needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


class _Chart:
    """A frame with two linear axes.

    Args:
        title: String. What a screen reader says.
        x: Pair. Range of the horizontal axis.
        y: Pair. Range of the vertical axis.
        size: Pair. Width and height of the view box.
        margins: Four numbers: left, right, top and bottom.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        size: tuple[int, int] = (400, 260),
        margins: tuple[int, int, int, int] = (44, 10, 28, 42),
    ) -> None:
        self._title, self._size, self._range = title, size, (x, y)
        left, right, top, bottom = margins
        self.left, self.right = left, size[0] - right
        self.top, self.bottom = top, size[1] - bottom
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self._range[0]
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self._range[1]
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def path(self, points: Iterable[tuple[float, float]], style: str) -> None:
        places = [f"{_number(self.x(x))} {_number(self.y(y))}" for x, y in points]
        self.parts.append(f'<path class="{style}" d="M{"L".join(places)}"/>')

    def text(
        self, x: float, y: float, text: str, style: str = "", anchor: str = "middle"
    ) -> None:
        self.parts.append(
            f'<text class="{style}" x="{_number(x)}" y="{_number(y)}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def dot(self, x: float, y: float, style: str, label: str, size: float = 4) -> None:
        self.parts.append(
            f'<circle class="dot {style}" cx="{_number(self.x(x))}" '
            f'cy="{_number(self.y(y))}" r="{size}"><title>{escape(label)}</title>'
            "</circle>"
        )

    def diamond(self, x: float, y: float, style: str, label: str) -> None:
        place = f"M{_number(self.x(x))} {_number(self.y(y))}"
        self.parts.append(
            f'<path class="dot {style}" d="{place}m0-7 7 7-7 7-7-7z">'
            f"<title>{escape(label)}</title></path>"
        )

    def axes(self, x_label: str, y_label: str, whole: bool = False) -> None:
        """Rules, numbers and names of both axes."""
        (x_low, x_high), (y_low, y_high) = self._range
        for value in _ticks(y_low, y_high):
            self.path([(x_low, value), (x_high, value)], "rule")
            place = self.y(value) + 4
            self.text(self.left - 6, place, f"{value:g}", "soft", "end")
        for value in _ticks(x_low, x_high, whole):
            self.text(self.x(value), self.bottom + 15, f"{value:g}", "soft")
        self.path([(x_low, y_low), (x_high, y_low)], "axis")
        middle = (self.left + self.right) / 2
        self.text(middle, self._size[1] - 6, x_label)
        self.text(2, 13, y_label, anchor="start")

    def svg(self) -> str:
        """The element."""
        width, height = self._size
        return (
            f'<svg viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{escape(self._title)}">{"".join(self.parts)}</svg>'
        )


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=whole)
    values = locator.tick_values(low, high)
    margin = 1e-9 * (high - low)
    return [float(v) for v in values if low - margin <= v <= high + margin]


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = share * (high - low) or 1.0
    return low - pad, high + pad


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Lines of the given styles, or a diamond, with their names."""

    def mark(style: str) -> str:
        if style.startswith("dot"):
            return f'<path class="{style}" d="M14 1l7 7-7 7-7-7z"/>'
        return f'<path class="curve {style}" d="M0 8H28"/>'

    keys = (
        f'<span><svg viewBox="0 0 28 16">{mark(style)}</svg>{escape(name)}</span>'
        for style, name in entries
    )
    return f'<div class="legend">{"".join(keys)}</div>'


def accuracy(scores: Scores) -> str:
    """Score against stored bits: a line a method, and the model itself."""
    every = [point for points in scores.points.values() for point in points]
    bits, value = scores.this
    if bits is not None:
        every.append((bits, value))
    marks = [y for _, y in every]
    if scores.unquantized is not None:
        marks.append(scores.unquantized)
    x_range = _padded([x for x, _ in every], 0.06)
    chart = _Chart(
        f"{scores.measure} against stored bits", x_range, _padded(marks, 0.08)
    )
    chart.axes("stored bits a value (measured)", scores.measure)
    entries = []
    if scores.unquantized is not None:
        level = scores.unquantized
        chart.path([(x_range[0], level), (x_range[1], level)], "curve plain dashed")
        entries.append(("plain dashed", f"float32: {level:.2f}"))
    for method, points in scores.points.items():
        chart.path(sorted(points), f"curve {method}")
        for x, y in points:
            chart.dot(x, y, method, f"{method}: {y:.2f} at {x:.2f} bits")
        entries.append((method, method))
    if bits is not None:
        label = f"this model: {value:.2f} at {bits:.2f} bits"
        chart.diamond(bits, value, "dqa", label)
        entries.append(("dot dqa", label))
    return chart.svg() + legend(entries)


def memory(timeline: Timeline) -> str:
    """Live activations of each form, step by step, with the peaks marked."""
    unit, name = timeline.unit
    count = len(timeline.steps)
    top = timeline.peak("float32")[1] / unit
    chart = _Chart(
        "Live activations at each step", (0.5, count + 0.5), (0, 1.12 * top or 1)
    )
    chart.axes("step", f"live activations ({name})", whole=True)
    entries = []
    for form in FORMS:
        style = _STYLE[form]
        values = timeline.bytes[form] / unit
        corners = [
            (step + side, float(value))
            for step, value in enumerate(values, 1)
            for side in (-0.5, 0.5)
        ]
        chart.path(corners, f"curve {style}")
        step, peak = timeline.peak(form)
        label = f"{form}: peak {peak / unit:.3g} {name} at {timeline.steps[step]}"
        chart.dot(step + 1, peak / unit, style, label, 4.5)
        entries.append((style, label))
    return chart.svg() + legend(entries)


def choices(plans: Sequence[tuple[float, int]]) -> str:
    """Memory of plans over their time: steps, as a budget buys no plan between two."""
    times = [time for time, _ in plans]
    sizes = [size / 1024 for _, size in plans]
    chart = _Chart(
        "Activation memory of plans against their time",
        _padded(times, 0.04),
        (0, 1.12 * max(sizes)),
    )
    chart.axes("time over the fastest plan's (estimated)", "activation memory (KiB)")
    steps = [(times[0], sizes[0])]
    for time, size in zip(times[1:], sizes[1:], strict=True):
        steps += [(time, steps[-1][1]), (time, size)]
    chart.path(steps, "curve dqa")
    entries = []
    for style, name, at in (("plain", "fastest", 0), ("dqa", "smallest", -1)):
        label = f"{name}: {sizes[at]:.3g} KiB at {times[at]:.2f}x"
        chart.dot(times[at], sizes[at], style, label, 4.5)
        entries.append((style, label))
    return chart.svg() + legend(entries)


def _levels(scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Scores in shades: halved from one to the next, the largest in the last."""
    largest = max(float(np.max(scores)), 1e-300)
    with np.errstate(divide="ignore"):
        down = np.floor(-np.log2(np.maximum(scores, 0) / largest))
    return np.clip(count - 1 - down, 0, count - 1).astype(np.int64)


SHADES = 8


def importance(scores: NDArray[np.floating], mask: NDArray[np.bool_]) -> str:
    """One row of a heat map: a cell a channel; chosen ones have a mark below."""
    levels = _levels(scores, SHADES)
    cells = []
    for level in range(SHADES):
        runs = _runs(levels == level)
        if runs:
            path = "".join(f"M{start} 0h{size}v13h-{size}z" for start, size in runs)
            shade = (level + 1) / SHADES
            cells.append(f'<path class="level" opacity="{shade:.2f}" d="{path}"/>')
    marks = "".join(f"M{start} 14h{size}v4h-{size}z" for start, size in _runs(mask))
    chosen = f'<path class="chosen" d="{marks}"/>' if marks else ""
    label = f"{int(mask.sum())} of {mask.size} channels get extra bits"
    return (
        f'<svg viewBox="0 0 {mask.size} 18" preserveAspectRatio="none" role="img" '
        f'shape-rendering="crispEdges" aria-label="{label}">{"".join(cells)}'
        f"{chosen}</svg>"
    )


def _runs(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and length of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen, [0]])))
    pairs = edges.reshape(-1, 2)
    return [(int(start), int(end - start)) for start, end in pairs]


_LOWEST = 1e-4


def histogram(values: Histogram, name: str) -> str:
    """Shares of values on a logarithmic axis, over the grid of their codes."""
    chart = _Chart(
        f"Values of {name}",
        (float(values.edges[0]), float(values.edges[-1])),
        (np.log10(_LOWEST), 0),
        size=(300, 132),
        margins=(48, 6, 6, 20),
    )
    bits = sorted(values.grids)
    # More lines than these would run together.
    rules = [n for n in bits if len(values.grids[n]) <= 64]
    for n in rules:
        coarse = n == bits[0]
        y = (chart.top, chart.bottom) if coarse else (chart.bottom, chart.bottom + 4)
        lines = "".join(
            f"M{_number(chart.x(value))} {y[0]}V{y[1]}" for value in values.grids[n]
        )
        style = "rule" if coarse else "tick dqa"
        chart.parts.append(f'<path class="{style}" d="{lines}"/>')
    for power, label in ((-4, "0.01 %"), (-2, "1 %"), (0, "100 %")):
        place = min(chart.y(power) + 4, chart.bottom)
        chart.text(chart.left - 4, max(place, 11), label, "soft", "end")
    for value in (-1, 0, 1):
        if values.edges[0] <= value <= values.edges[-1]:
            chart.text(chart.x(value), chart.bottom + 16, f"{value}", "soft")
    floor = float(np.log10(_LOWEST))
    left, right = float(values.edges[0]), float(values.edges[-1])
    for n, shares in values.shares.items():
        heights = np.log10(np.maximum(shares, _LOWEST))
        corners = list(
            zip(
                np.repeat(values.edges, 2)[1:-1].tolist(),
                np.repeat(heights, 2).tolist(),
                strict=True,
            )
        )
        if n == bits[0]:
            chart.path([(left, floor), *corners, (right, floor)], "area")
        else:
            chart.path(corners, "curve dqa")
    chart.path([(left, floor), (right, floor)], "axis")
    return chart.svg()
