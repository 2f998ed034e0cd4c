"""Lays findings out as one HTML page that needs no network and no other file."""

from collections.abc import Sequence
from importlib import resources

from dqa_keras.analysis.memory import FORMS, Timeline
from dqa_keras.report import charts
from dqa_keras.report.charts import escape
from dqa_keras.report.findings import PARTS, Findings, Layer

Cells = Sequence[Sequence[str]]


def _asset(name: str) -> str:
    return (resources.files(__package__) / name).read_text()


def sortable(rows: Cells, label: str) -> str:
    """A table whose headings sort it; the first row holds them."""
    head, *body = rows
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button>{escape(cell)}</button></th>'
        for cell in head
    )
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in body
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="sorts"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _shape(layer: Layer) -> str:
    return " x ".join(str(size or "?") for size in layer.table.shape)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _kib(layer: Layer) -> str:
    if layer.stored_bits is None or not layer.activations:
        return "-"
    return f"{layer.stored_bits * layer.activations / 8192:.2f}"


def _layer_rows(layers: Sequence[Layer]) -> list[tuple[str, ...]]:
    head = (
        "layer", "step", "shape", "bits n", "extra bits m", "important channels",
        "stored bits", "KiB", "SQNR, dB", "SQNR of the output, dB",
    )  # fmt: skip
    rows = [
        (
            layer.table.name,
            str(number),
            _shape(layer),
            str(layer.table.bits),
            str(layer.table.extra_bits),
            f"{100 * layer.table.mask.mean():.0f} %",
            _or_dash(layer.stored_bits, ".3f"),
            _kib(layer),
            _or_dash(layer.sqnr, ".1f"),
            _or_dash(layer.output_sqnr, ".1f"),
        )
        for number, layer in enumerate(layers, 1)
    ]
    return [head, *rows]


def _cards(findings: Findings) -> str:
    cards = []
    if findings.scores:
        value = findings.scores.this[1]
        cards.append((f"{value:.2f}", findings.scores.measure))
        if findings.scores.unquantized is not None:
            what = f"{findings.scores.measure}, float32"
            cards.append((f"{findings.scores.unquantized:.2f}", what))
    if findings.stored_bits is not None:
        cards.append((f"{findings.stored_bits:.3f}", "stored bits a value"))
    if findings.timeline:
        unit, name = findings.timeline.unit
        for form, what in (("stored", "as stored"), ("int8", "as int8")):
            peak = findings.timeline.peak(form)[1] / unit
            cards.append((f"{peak:.3g} {name}", f"peak of live activations, {what}"))
    if findings.output_sqnr is not None:
        cards.append((f"{findings.output_sqnr:.1f} dB", "SQNR of the output"))
    items = (f"<li><b>{escape(a)}</b><span>{escape(b)}</span></li>" for a, b in cards)
    return f'<ul class="cards">{"".join(items)}</ul>'


def _bar(value: float | None, longest: float, worst: bool) -> str:
    if value is None:
        return "<td>-</td>"
    width = 100 * max(value, 0.0) / max(longest, 1e-9)
    style = "bar worst" if worst else "bar"
    return (
        f'<td>{value:.1f}<span class="{style}"><i style="width:{width:.0f}%"></i>'
        "</span></td>"
    )


_WORST = 3


def _errors(layers: Sequence[Layer]) -> str:
    own = [layer.sqnr for layer in layers if layer.sqnr is not None]
    outer = [layer.output_sqnr for layer in layers if layer.output_sqnr is not None]
    worst = sorted(outer)[: min(_WORST, len(outer) // 2)]
    rows = "".join(
        f'<tr><td title="{escape(layer.table.name)}">{escape(layer.table.name)}</td>'
        + _bar(layer.sqnr, max(own, default=0.0), False)
        + _bar(layer.output_sqnr, max(outer, default=0.0), layer.output_sqnr in worst)
        + "</tr>"
        for layer in layers
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Errors by layer">'
        '<table class="bars"><thead><tr><th scope="col">layer</th>'
        '<th scope="col">SQNR of this activation, dB</th>'
        '<th scope="col">SQNR of the output, dB</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _steps(timeline: Timeline) -> str:
    unit, name = timeline.unit
    rows = [("step", "layer", *(f"{form}, {name}" for form in FORMS))]
    rows += [
        (
            str(number + 1),
            step,
            *(f"{timeline.bytes[form][number] / unit:.3f}" for form in FORMS),
        )
        for number, step in enumerate(timeline.steps)
    ]
    table = sortable(rows, "Live activations at each step")
    return f"<details><summary>every step as a table</summary>{table}</details>"


def _heat(layers: Sequence[Layer]) -> str:
    rows = "".join(
        f'<span title="{escape(layer.table.name)}">{escape(layer.table.name)}</span>'
        f"{charts.importance(layer.importance, layer.table.mask)}"
        f"<span>{layer.table.mask.size} ch.</span>"
        for layer in layers
        if layer.importance is not None
    )
    ramp = "".join(
        f'<rect class="level" x="{level}" width="1" height="1" '
        f'opacity="{(level + 1) / charts.SHADES:.2f}"/>'
        for level in range(charts.SHADES)
    )
    return (
        f'<div class="legend"><span><svg class="ramp" preserveAspectRatio="none" '
        f'viewBox="0 0 {charts.SHADES} 1">{ramp}</svg>score of the ranking, doubled '
        "from shade to shade; the strongest is the layer's largest</span>"
        '<span><svg viewBox="0 0 28 16"><path class="curve dqa" d="M0 8H28"/></svg>'
        f'gets the extra bits</span></div><div class="heat">{rows}</div>'
    )


def _histograms(layers: Sequence[Layer]) -> str:
    figures = []
    for layer in layers:
        shown = layer.histogram
        if shown is None:
            continue
        name = escape(layer.table.name)
        figures.append(
            f"<figure>{charts.histogram(shown, layer.table.name)}<figcaption>"
            f"<b>{name}</b><br>n = {layer.table.bits}, m = {layer.table.extra_bits}; "
            f"{100 * shown.zeros:.1f} % stored as 0, "
            f"{100 * shown.clipped:.2f} % clipped</figcaption></figure>"
        )
    entries = [
        ("direct", "channels of n bits (filled)"),
        ("dqa", "channels of n + m bits"),
    ]
    return charts.legend(entries) + f'<div class="many">{"".join(figures)}</div>'


def paragraph(text: str) -> str:
    """A paragraph of explanation."""
    return f'<p class="soft">{escape(text)}</p>'


def _body(findings: Findings) -> list[tuple[str, str, str]]:
    """Heading, explanation and content of each of `PARTS`; no content where absent."""
    layers = findings.layers
    any_heat = any(layer.importance is not None for layer in layers)
    any_histogram = any(layer.histogram is not None for layer in layers)
    any_error = any(layer.sqnr is not None for layer in layers)
    quality = findings.scores.measure.split(" (")[0] if findings.scores else "accuracy"
    scores = (
        f'<figure class="chart">{charts.accuracy(findings.scores)}</figure>'
        if findings.scores and findings.scores.points
        else ""
    )
    memory = (
        f'<figure class="chart">{charts.memory(findings.timeline)}</figure>'
        f"{_steps(findings.timeline)}"
        if findings.timeline
        else ""
    )
    return [
        (
            f"{quality[0].upper()}{quality[1:]} against stored bits",
            "Direct quantization stores n bits and has no important channels. Every "
            "point is the same network on the same images.",
            scores,
        ),
        (
            "Layers",
            "Press a heading to sort. Stored bits hold base codes, residuals and "
            "their tables; KiB are for one input. SQNR of the output is what is left "
            "of it when this layer alone is quantized.",
            sortable(_layer_rows(layers), "Layers"),
        ),
        (
            "Where the error enters",
            "Signal to quantization noise; longer bars are better. Left: of the "
            "activation itself, with every layer quantized. Right: of the model's "
            "output when this layer alone is quantized; orange marks the layers that "
            "cost most. Give those more bits first.",
            _errors(layers) if any_error else "",
        ),
        (
            "Memory, step by step",
            "Activations of one input that are alive while a step runs. Stored: "
            "quantized ones at their stored bits, everything else as int8. Whole "
            "tensors, without weights and without a runtime's own buffers; a runtime "
            "that works in strips can go below.",
            memory,
        ),
        (
            "Memory against time",
            "Activation memory of the plans that a packed export chooses among, over "
            "their time as the planner estimates it; the fastest takes 1. An export "
            "takes the smallest up to twice the time, or the fastest that fits "
            "arena_kib. Inputs and outputs are not counted.",
            f'<figure class="chart">{charts.choices(findings.choices)}</figure>'
            if findings.choices
            else "",
        ),
        (
            "Which channels matter",
            "One row a layer, one cell a channel.",
            _heat(layers) if any_heat else "",
        ),
        (
            "Activations on the grid of their codes",
            "Share of the values, over the value as a share of the largest that the "
            "codes of its channel reach: clipping starts at 1. Vertical rules: the "
            "values that n bits can store; short ones below: those of n + m bits.",
            _histograms(layers) if any_histogram else "",
        ),
    ]


def render(findings: Findings, before: str = "") -> str:
    """The page as HTML.

    Args:
        findings: `Findings`.
        before: HTML to put above the first part. Defaults to none.

    Returns:
        The HTML text.
    """
    parts = []
    for part, (heading, explanation, content) in zip(
        PARTS, _body(findings), strict=True
    ):
        why = findings.absent.get(part, "")
        lines = [paragraph(explanation) if content and explanation else "", content]
        if why:
            lines.append(paragraph(why))
        if content or why:
            parts.append(f"<h2>{escape(heading)}</h2>{''.join(lines)}")
    if findings.skipped:
        items = "".join(
            f"<li>{escape(skip.name)}: {escape(skip.reason)}</li>"
            for skip in findings.skipped
        )
        parts.append(f"<h2>Not quantized</h2><ul>{items}</ul>")
    if findings.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in findings.notes)
        parts.append(f"<h2>How it was measured</h2><ul>{items}</ul>")
    title = f"DQA report: {findings.name}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_asset('page.css')}</style></head>"
        f"<body><h1>{escape(title)}</h1>{_cards(findings)}{before}{''.join(parts)}"
        f"<script>{_asset('page.js')}</script></body></html>\n"
    )
