"""Charts put figures where they belong."""

import re

import numpy as np

from dqa_keras.analysis.memory import FORMS, Timeline
from dqa_keras.report import charts
from dqa_keras.report.findings import Scores


def test_points_keep_their_order_on_both_axes():
    scores = Scores(
        "accuracy (%)", 10, {"direct": [(3.0, 50.0), (2.0, 40.0)]}, (2.5, 60.0), 70.0
    )
    text = charts.accuracy(scores)
    dots = re.findall(r'class="dot direct" cx="([\d.]+)" cy="([\d.]+)"', text)
    (x3, y3), (x2, y2) = [(float(x), float(y)) for x, y in dots]
    assert x2 < x3
    assert y3 < y2  # SVG counts downwards
    place = re.search(r'class="dot dqa" d="M([\d.]+) ([\d.]+)m', text)
    assert x2 < float(place.group(1)) < x3
    assert float(place.group(2)) < y3
    for words in ("float32: 70.00", "this model: 60.00 at 2.50 bits", "accuracy (%)"):
        assert words in text


def test_the_timeline_names_the_peaks():
    values = {form: np.array([1.0, 3.0, 2.0]) * 1024 for form in FORMS}
    text = charts.memory(Timeline(("a", "b<c", "d"), values))
    assert text.count("<circle") == 3
    assert "int8: peak 3 KiB at b&lt;c" in text
    assert "live activations (KiB)" in text


def test_plans_are_steps_from_the_fastest_to_the_smallest():
    svg = charts.choices([(1.0, 8192), (1.5, 4096), (2.0, 1024)])
    assert "fastest: 8 KiB at 1.00x" in svg
    assert "smallest: 1 KiB at 2.00x" in svg
    # One corner for the first plan, two for each other one.
    (path,) = re.findall(r'class="curve dqa" d="M([^"]*)"', svg.split("<div")[0])
    assert path.count("L") == 4


def test_shades_halve_and_chosen_channels_are_marked():
    scores = np.array([8.0, 4.0, 1.9, 0.0, 8.0])
    text = charts.importance(scores, np.array([True, False, False, False, True]))
    shades = dict(re.findall(r'opacity="([\d.]+)" d="([^"]+)"', text))
    assert shades == {
        "0.12": "M3 0h1v13h-1z",
        "0.75": "M2 0h1v13h-1z",
        "0.88": "M1 0h1v13h-1z",
        "1.00": "M0 0h1v13h-1zM4 0h1v13h-1z",
    }
    assert 'class="chosen" d="M0 14h1v4h-1zM4 14h1v4h-1z"' in text
    assert "2 of 5 channels get extra bits" in text


def test_a_layer_without_scores_draws_one_shade():
    text = charts.importance(np.zeros(4), np.zeros(4, bool))
    assert text.count("<path") == 1
    assert "chosen" not in text


def test_a_histogram_has_a_rule_for_each_code(examined):
    layer = examined[-1].layers[0]
    text = charts.histogram(layer.histogram, "first")
    rules = re.search(r'class="rule" d="([^"]+)"', text).group(1)
    ticks = re.search(r'class="tick dqa" d="([^"]+)"', text).group(1)
    assert (rules.count("M"), ticks.count("M")) == (2**3, 2**5)
