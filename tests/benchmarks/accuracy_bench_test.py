"""The rules that `dqa bench accuracy` checks its figures by."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(BENCHMARK))


def cells(**measured):
    """Cells of `method_bits=(stored bits, accuracy)`."""
    return {
        " ".join(name.split("_")): {
            "stored_bits": stored,
            "accuracy": accuracy,
            "calibration_seconds": 1.0,
        }
        for name, (stored, accuracy) in measured.items()
    }


def held(benchmark, models):
    return {
        check["rule"]: (check["holds"], check["measured"])
        for check in benchmark["checks"](models)
    }


def test_the_line_runs_between_neighbours(benchmark):
    points = [(3.0, 80.0), (2.0, 60.0), (4.0, 82.0)]
    assert benchmark["line"](points, 2.25) == 65.0
    assert benchmark["line"](points, 3.5) == 81.0
    assert benchmark["line"](points, 4.5) is None


def test_dqa_is_held_against_the_line_of_direct(benchmark):
    measured = cells(
        direct_2=(2, 60), direct_3=(3, 80), direct_4=(4, 90), dqa_2=(2.4, 73)
    )
    models = {"resnet32": {"float": 92.0, "cells": measured}}
    rule = (
        "resnet32, 2 to 4 stored bits: dqa above the line between direct's neighbours"
    )
    better = "resnet32: 5 points above that line between 2 and 3"
    result = held(benchmark, models)
    assert result[rule] == (True, "at least 5.00 points (2.40 bits)")
    assert result[better][0] is True
    measured.update(cells(dqa_3=(3.5, 84)))  # the line is at 85 there
    result = held(benchmark, models)
    assert result[rule] == (False, "at least -1.00 points (3.50 bits)")


def test_a_target_counts_cells_at_or_under_its_bits(benchmark):
    rule = "resnet32, dqa or budget: 4.5 below float at 2.5 bits"
    measured = cells(budget_2=(2.51, 91.0))
    models = {"resnet32": {"float": 92.0, "cells": measured}}
    assert held(benchmark, models)[rule][0] is None
    measured.update(cells(dqa_2=(2.5, 87.5)))
    assert held(benchmark, models)[rule] == (True, "4.50 points at 2.50 bits")
    measured["dqa 2"]["accuracy"] = 87.4
    assert held(benchmark, models)[rule][0] is False


def test_the_paper_preset_must_lead_both_baselines(benchmark):
    measured = {
        f"paper {kind} 3": {"accuracy": accuracy, "stored_bits": 3.0}
        for kind, accuracy in (("dqa", 50.0), ("direct", 20.0), ("noisyquant", 10.0))
    }
    result = held(benchmark, {"unet": {"float": 55.0, "cells": measured}})
    rule = "unet, paper preset, 3 bits: dqa above direct and noisyquant"
    assert result[rule] == (True, "50.00 against 20.00 and 10.00 %")
    best = "paper preset: a lead of 29.28 points or more in one cell"
    assert result[best] == (True, "30.00 points")
    measured["paper noisyquant 3"]["accuracy"] = 50.0
    assert (
        held(benchmark, {"unet": {"float": 55.0, "cells": measured}})[rule][0] is False
    )


def test_figures_come_with_their_standard_errors_where_there_are_some(benchmark):
    measured = cells(dqa_4=(4.4, 86.0), budget_2=(2.5, 80.0))
    measured["dqa 4"] |= {
        "agreement": 95.25,
        "agreement_error": 0.75,
        "drop_error": 0.7,
        "output_error": 0.0801,
    }
    measured["reconstructed entropy 2.67"] = measured.pop("budget 2")
    models = {"efficientnet_lite0": {"float": 88.38, "cells": measured}}
    text = benchmark["markdown"]({"models": models, "checks": []})
    assert (
        "| dqa | 4 | 4.400 | 86.00 | 2.38 ± 0.70 | 95.25 ± 0.75 | 0.0801 | 1 |" in text
    )
    entropy = "| reconstructed entropy | 2.67 | 2.500 | 80.00 | 8.38 | - | - | 1 |"
    assert entropy in text
    chosen = benchmark["config"]("reconstructed entropy", 2.67)
    assert (chosen.budget_bits, chosen.entropy) == (2.67, "all")
    assert benchmark["config"]("reconstructed", 3.25).entropy == "residual"
