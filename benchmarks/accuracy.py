"""Accuracy and measured stored bits of every method, on five models.

    dqa bench accuracy --data_dir tfds --weights resnet32=resnet32_cifar10.npz

Calibrated on training images, measured on the full test split: top-1 accuracy on
CIFAR-10 and on a sample of ImageNet, mean IoU on CamVid, void pixels left out; with
agreement with the float model's classes and the outputs' relative squared error, and
standard errors where images have one label. "int8" is what LiteRT's converter makes of
the float model. After every cell
results/accuracy.json is written; a cell that it holds is not computed again. The table
(.md), the checks under it and the picture (.svg) are made of that file.

Nothing is picked on test images. The paper's share of important channels comes from
benchmarks/paper_share.py, which sees training images only. Budgets lie under the figure
that a check names, as they hold to 1 % on images that calibration has not seen.
"""

import argparse
import dataclasses
import itertools
import json
import os
import time
from pathlib import Path

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = Path(__file__).parent / "results"

BITS = (2, 3, 4, 5)
# What each method is run at: n, or stored bits where a budget decides n by itself.
METHODS: dict[str, tuple[float, ...]] = {
    "paper direct": (3, 4, 5),
    "paper noisyquant": (3, 4, 5),
    "paper dqa": (3, 4, 5),
    "direct": BITS,
    "noisyquant": BITS,
    "dqa": BITS,
    "symmetric dqa": (),
    "budget": (2.25, 2.48, 2.9, 3.22, 3.9, 4.27),
    "entropy": (2.2, 2.67, 3.2, 4.0),
    "tuned": (2.48, 3.22),
    "reconstructed": (),
    "reconstructed entropy": (),
    "int8": (8,),
}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model, its data set, and how it is measured there."""

    data: str
    metric: str
    calibration_images: int
    batch: int
    methods: dict[str, tuple[float, ...]] = dataclasses.field(
        default_factory=METHODS.copy
    )


MODELS = {
    "resnet32": Subject("cifar10", "top-1 accuracy", 1000, 128),
    "mobilenet_v2": Subject("cifar10", "top-1 accuracy", 1000, 128),
    "unet": Subject("camvid", "mean IoU", 64, 8),
    "efficientnet_mini": Subject(
        "cifar10",
        "top-1 accuracy",
        1000,
        128,
        {"symmetric dqa": (4,), "dqa": (4,)},
    ),
    "efficientnet_lite0": Subject(
        "imagenet_sample",
        "top-1 accuracy",
        200,
        50,
        {
            "direct": (3, 4),
            "dqa": (3, 4),
            "budget": (2.5, 3.25, 4.25),
            "entropy": (2.67,),
            "reconstructed": (2.5, 3.25, 4.25),
            "reconstructed entropy": (2.67,),
            "int8": (8,),
        },
    ),
}


def config(method: str, at: float):
    """The `DQAConfig` of a cell."""
    import dqa_keras as dqa

    preset, _, kind = method.rpartition(" ")
    if preset == "paper":
        return dqa.DQAConfig.paper(int(at), method=kind)
    if preset == "symmetric":
        return dqa.DQAConfig(bits=int(at))
    if method in ("budget", "tuned", "reconstructed"):
        return dqa.DQAConfig(budget_bits=at)
    if kind == "entropy":
        return dqa.DQAConfig(budget_bits=at, entropy="all")
    return dqa.DQAConfig(bits=int(at), method=kind)


def calibrated(model, chosen, calibration, known: dict):
    """The quantized model, and the seconds that its calibration took."""
    import dqa_keras as dqa

    quantized = dqa.quantize_model(model, chosen)
    if chosen in known:  # by another cell, which trained its weights afterwards
        weights, seconds = known[chosen]
        quantized.set_weights(weights)
        return quantized, seconds
    start = time.perf_counter()
    dqa.calibrate(quantized, calibration, verbose=0)
    seconds = time.perf_counter() - start
    known[chosen] = quantized.get_weights(), seconds
    return quantized, seconds


def symmetric(model, chosen, calibration):
    """The same without zero points: such layers get signed codes."""
    import dqa_keras as dqa
    from dqa_keras.layers import quantizer_layers

    quantized, _ = calibrated(model, chosen, calibration, {})
    signed = chosen.replace(signed=True)
    overrides = {
        layer.name.removesuffix("_dqa"): signed
        for layer in quantizer_layers(quantized)
        if layer.table().signed
    }
    quantized = dqa.quantize_model(model, chosen, overrides=overrides)
    start = time.perf_counter()
    dqa.calibrate(quantized, calibration, verbose=0)
    return quantized, time.perf_counter() - start


def measure(
    model, exact, subject: Subject, splits, method: str, at: float, known: dict
) -> dict:
    """One cell: accuracy in percent, stored bits per activation, seconds."""
    import dqa_keras as dqa
    from dqa_keras.cli.int8 import int8_tflite
    from dqa_keras.cli.measure import compared, tflite_compared

    if method == "int8":
        start = time.perf_counter()
        content = int8_tflite(model, splits.train.take(subject.calibration_images))
        cell = {"calibration_seconds": time.perf_counter() - start}
        cell |= tflite_compared(content, exact, splits.test, subject.batch)
        return {**cell, "stored_bits": at}
    chosen = config(method, at)
    calibration = splits.train.take(subject.calibration_images).batch(subject.batch)
    if method == "symmetric dqa":
        quantized, seconds = symmetric(model, chosen, calibration)
    else:
        quantized, seconds = calibrated(model, chosen, calibration, known)
    cell = {"calibration_seconds": seconds}
    if method.startswith("reconstructed"):
        start = time.perf_counter()
        dqa.reconstruct(quantized, model, calibration, verbose=0)
        cell["reconstruction_seconds"] = time.perf_counter() - start
    if method == "tuned":
        start = time.perf_counter()
        tune(quantized, model, subject, splits.train, calibration)
        cell["tuning_seconds"] = time.perf_counter() - start
    cell |= compared(quantized, exact, splits.test, subject.batch)
    cell["stored_bits"] = at
    if chosen.method == "dqa":  # the baselines store exactly n bits
        test = splits.test.batch(subject.batch)
        cell["stored_bits"] = dqa.storage_bits(quantized, test).total
    return {**cell, "config": chosen.to_dict()}


def tune(quantized, model, subject: Subject, train, calibration) -> None:
    """One epoch of `dqa.FineTuning`'s recipe, on augmented training images."""
    import keras
    import numpy as np

    import dqa_keras as dqa
    from dqa_keras.models import training

    def distillation(teacher, student):
        """Cross-entropy of the float model's outputs, at temperature 4."""
        return 16 * keras.losses.categorical_crossentropy(
            keras.ops.softmax(teacher / 4), student / 4, from_logits=True
        )

    for layer in quantized.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    tuning = dqa.FineTuning(quantized, calibration)
    steps = int(train.cardinality()) // subject.batch
    rate = keras.optimizers.schedules.CosineDecay(5e-4, steps)
    quantized.compile(keras.optimizers.Adam(rate), distillation)
    augment = training.RECIPES[quantized.name].augment
    random = np.random.default_rng(0)

    def batches():
        shuffled = train.shuffle(16384, seed=0).batch(subject.batch)
        for x, y in shuffled.as_numpy_iterator():
            x, _ = augment(x, y, x.shape[1:3], random)
            x = x.astype(np.float32)
            yield x, model.predict_on_batch(x)

    quantized.fit(
        batches(),
        steps_per_epoch=steps,
        shuffle=False,
        callbacks=[tuning],
        verbose=2,
    )


def load(name: str, weights: dict[str, str]):
    """A model with the project's own weights, or with those of a file."""
    from dqa_keras.cli.inputs import open_model

    return open_model(name, weights.get(name, MODELS[name].data))


def line(points: list[tuple[float, float]], at: float) -> float | None:
    """The accuracy that lies at these stored bits on straight lines between points."""
    points = sorted(points)
    for (low, bottom), (high, top) in itertools.pairwise(points):
        if low <= at <= high:
            return bottom + (top - bottom) * (at - low) / (high - low)
    return None


def points(rows: dict, *methods: str) -> list[tuple[float, float]]:
    """(stored bits, accuracy) of all cells of some methods."""
    return [
        (cell["stored_bits"], cell["accuracy"])
        for name, cell in rows["cells"].items()
        if name.rpartition(" ")[0] in methods
    ]


# Cells further below a target's stored bits say nothing about it.
NEAR = 0.2

# Model, methods, stored bits, largest distance from float in points.
_TARGETS = (
    ("resnet32", ("dqa", "budget"), 2.5, 4.5),
    ("resnet32", ("dqa", "budget"), 3.25, 1.5),
    ("resnet32", ("dqa", "budget"), 4.3, 0.4),
    ("mobilenet_v2", ("dqa", "budget"), 4.5, 2.0),
    ("unet", ("dqa", "budget"), 4.3, 1.0),
    ("resnet32", ("entropy",), 2.7, 0.5),
    ("unet", ("entropy",), 2.7, 1.0),
    ("resnet32", ("tuned",), 2.5, 1.5),
)


def checks(models: dict) -> list[dict]:
    """What must hold: a rule, what was measured, and whether it holds.

    A rule whose cells are not all measured yet holds as `None`.
    """
    return [
        *_paper_checks(models),
        *_line_checks(models),
        *_target_checks(models),
        _zero_point_check(models),
    ]


def _zero_point_check(models: dict) -> dict:
    rows = models.get("efficientnet_mini", {"cells": {}})
    rule = "efficientnet_mini, 4 bits: half of what symmetric codes lose"
    both = [rows["cells"].get(f"{method} 4") for method in ("symmetric dqa", "dqa")]
    if None in both:
        return {"rule": rule, "measured": "", "holds": None}
    before, after = (rows["float"] - cell["accuracy"] for cell in both)
    text = f"{after:.2f} points instead of {before:.2f}"
    return {"rule": rule, "measured": text, "holds": after <= before / 2}


def _paper_checks(models: dict) -> list[dict]:
    checks, leads = [], []
    for name, subject in MODELS.items():
        cells = models.get(name, {"cells": {}})["cells"]
        for bits in subject.methods.get("paper dqa", ()):
            rule = f"{name}, paper preset, {bits} bits: dqa above direct and noisyquant"
            trio = [
                cells.get(f"paper {kind} {bits}", {}).get("accuracy")
                for kind in ("dqa", "direct", "noisyquant")
            ]
            if None in trio:
                checks.append({"rule": rule, "measured": "", "holds": None})
                continue
            leads.append(trio[0] - max(trio[1:]))
            text = "{:.2f} against {:.2f} and {:.2f} %".format(*trio)
            checks.append({"rule": rule, "measured": text, "holds": leads[-1] > 0})
    best = max(leads, default=None)
    checks.append(
        {
            "rule": "paper preset: a lead of 29.28 points or more in one cell",
            "measured": "" if best is None else f"{best:.2f} points",
            "holds": None if best is None else best >= 29.28,
        }
    )
    return checks


def _line_checks(models: dict) -> list[dict]:
    checks = []
    for name, subject in MODELS.items():
        if "direct" not in subject.methods:
            continue
        rows = models.get(name, {"cells": {}})
        direct = points(rows, "direct")
        above = [
            (bits, accuracy - reference)
            for bits, accuracy in points(rows, "dqa", "budget")
            if 2 <= bits <= 4 and (reference := line(direct, bits)) is not None
        ]
        lowest = min(above, key=lambda pair: pair[1], default=None)
        checks.append(
            {
                "rule": f"{name}, 2 to 4 stored bits: dqa above the line between "
                "direct's neighbours",
                "measured": ""
                if lowest is None
                else f"at least {lowest[1]:.2f} points ({lowest[0]:.2f} bits)",
                "holds": None if lowest is None else lowest[1] > 0,
            }
        )
        if name == "resnet32":
            inner = [pair for pair in above if pair[0] <= 3]
            best = max(inner, key=lambda pair: pair[1], default=None)
            checks.append(
                {
                    "rule": "resnet32: 5 points above that line between 2 and 3",
                    "measured": ""
                    if best is None
                    else f"{best[1]:.2f} points ({best[0]:.2f} bits)",
                    "holds": None if best is None else best[1] >= 5,
                }
            )
    return checks


def _target_checks(models: dict) -> list[dict]:
    checks = []
    for name, methods, bits, distance in _TARGETS:
        rule = f"{name}, {' or '.join(methods)}: {distance} below float at {bits} bits"
        rows = models.get(name, {"cells": {}})
        near = [
            point for point in points(rows, *methods) if bits - NEAR <= point[0] <= bits
        ]
        if not near:
            checks.append({"rule": rule, "measured": "", "holds": None})
            continue
        stored, accuracy = max(near, key=lambda point: point[1])
        below = rows["float"] - accuracy
        text = f"{below:.2f} points at {stored:.2f} bits"
        checks.append({"rule": rule, "measured": text, "holds": below <= distance})
    return checks


def with_error(cell: dict, name: str, value: float | None) -> str:
    """A figure of a cell with its standard error, where the cell has one."""
    if value is None:
        return "-"
    error = cell.get(f"{name}_error")
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")


def markdown(result: dict) -> str:
    """The table of all cells and the checks."""
    lines = []
    for name, rows in result["models"].items():
        subject = MODELS[name]
        lines += [
            f"## {name}, {subject.data}: {subject.metric} {rows['float']:.2f} % in "
            "float32\n",
            "| method | bits | stored bits | % | below float | agreement (%) "
            "| output error | calibration (s) |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for method, values in subject.methods.items():
            for at in values:
                cell = rows["cells"].get(f"{method} {at}")
                if cell:
                    drop = rows["float"] - cell["accuracy"]
                    lines.append(
                        f"| {method} | {at} | {cell['stored_bits']:.3f} "
                        f"| {cell['accuracy']:.2f} "
                        f"| {with_error(cell, 'drop', drop)} "
                        f"| {with_error(cell, 'agreement', cell.get('agreement'))} "
                        f"| {cell.get('output_error', '-'):.4} "
                        f"| {cell['calibration_seconds']:.0f} |"
                    )
        lines.append("")
    lines += ["## Checks\n", "| rule | measured | holds |", "|---|---|---|"]
    holds = {True: "yes", False: "no", None: "not measured"}
    for check in result["checks"]:
        lines.append(
            f"| {check['rule']} | {check['measured']} | {holds[check['holds']]} |"
        )
    return "\n".join(lines) + "\n"


def draw(models: dict, path: Path) -> None:
    """Accuracy against stored bits, a panel a model."""
    import matplotlib.figure

    from dqa_keras import plots

    figure = matplotlib.figure.Figure((5.2 * len(models), 4.2), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, models.items(), strict=True):
        series = {
            method: line
            for method in METHODS
            if not method.startswith("paper") and (line := points(rows, method))
        }
        plots.accuracy_against_bits(series, rows["float"], axes)
        axes.set_title(f"{name}, {MODELS[name].data}")
        axes.set_ylabel(f"{MODELS[name].metric} on the test split (%)")
        # NoisyQuant at 2 bits is far below the rest; it may leave the picture.
        axes.set_ylim(rows["float"] * 0.7, rows["float"] * 1.02)
    figure.savefig(path)


def write(result: dict, path: Path) -> None:
    """The JSON file, the Markdown and the picture beside it."""
    from dqa_keras import files

    result["checks"] = checks(result["models"])
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    with files.replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(markdown(result))
    if any(rows["cells"] for rows in result["models"].values()):
        draw(result["models"], path.with_suffix(".svg"))


def read(path: Path, limit: int) -> dict:
    """What an earlier run measured."""
    result = {"limit": limit, "models": {}, **results.read(path)}
    if result["limit"] != limit:
        raise SystemExit(
            f"{path} holds figures of --limit {result['limit']}: name another --json"
        )
    return result


def run(options: argparse.Namespace, weights: dict[str, str]) -> dict:
    """Measures the cells that are missing."""
    from shared import results
    from shared.remembered import Remembered

    from dqa_keras import datasets
    from dqa_keras.cli.measure import accuracy

    result = read(options.json, options.limit)
    for name in options.models:
        subject = MODELS[name]
        model = load(name, weights)
        splits = datasets.load(subject.data, data_dir=options.data_dir)
        if options.limit:
            splits = dataclasses.replace(splits, test=splits.test.take(options.limit))
        exact, known = Remembered(model), {}
        used = Path(weights.get(name, subject.data)).name
        rows = result["models"].setdefault(name, {"weights": used, "cells": {}})
        if rows["weights"] != used:
            raise SystemExit(f"{options.json} holds {name} with {rows['weights']}")
        if "float" not in rows:
            rows["float"] = accuracy(exact, splits.test, subject.batch)
        print(f"{name}: {rows['float']:.2f} %", flush=True)
        for method in options.methods:
            for at in subject.methods.get(method, ()):
                cell = f"{method} {at}"
                if cell in rows["cells"]:
                    continue
                measured = measure(model, exact, subject, splits, method, at, known)
                rows["cells"][cell] = measured | {"commit": results.commit()}
                write(result, options.json)
                print(
                    f"{name}, {cell}: {measured['accuracy']:.2f} % at "
                    f"{measured['stored_bits']:.3f} stored bits",
                    flush=True,
                )
    write(result, options.json)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="prepared TFDS datasets")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--limit", type=arguments.limit, default=0, help="test images; 0: all"
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="MODEL=FILE",
        help="weights other than the project's own",
    )
    parser.add_argument(
        "--json", type=arguments.output, default=RESULTS / "accuracy.json"
    )
    options = parser.parse_args()
    pairs = [pair.partition("=") for pair in options.weights]
    if any(model not in MODELS or not file for model, _, file in pairs):
        parser.error(f"--weights takes MODEL=FILE, models {', '.join(MODELS)}")
    result = run(options, {model: file for model, _, file in pairs})
    print(markdown(result))
    if any(check["holds"] is False for check in result["checks"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
