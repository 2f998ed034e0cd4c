"""How calibration's time and memory grow with images, channels and layers.

    dqa bench growth --json benchmarks/results/growth.json

Every point is a process of its own. The exponent is the slope of a straight line
through the points on log axes:

- images: ResNet-32, a stream of 1,000 to 50,000 images; time of one round subtracted
- channels: two quantizers of C channels each, behind convolutions whose own work is
  linear in C; all of a calibration, for each ranking
- layers: convolutions of 16 channels; all of a calibration

Memory is the process's peak. Beside it stands what the formula in the documentation of
`dqa_keras.calibration.statistics` says: what predicting takes, and what statistics
take on top.

With --json FILE.json the picture goes to FILE.svg.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import typing
from pathlib import Path

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

POINTS = {
    "images": (1000, 7000, 50000),
    "channels": (512, 1024, 2048, 4096),
    "layers": (8, 16, 32, 64),
}
# Other rankings than `mse` cost more a point.
GREEDY_CHANNELS = (64, 128, 256)
OTHER_CHANNELS = (1024, 2048, 4096)
BATCH = 32
# As in dqa_keras.plots: Okabe and Ito's.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#555555")
MIB = 2**20


def rankings() -> list[str]:
    from dqa_keras.config import Ranking

    return [name for name in typing.get_args(Ranking) if name not in ("auto", "mse")]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def network(kind: str, value: int):
    import keras

    from dqa_keras.models import resnet32

    keras.utils.set_random_seed(0)
    if kind == "images":
        return resnet32()
    inputs = keras.Input((8, 8, 3))
    layers = keras.layers
    if kind == "channels":
        x = layers.Conv2D(value, 1, activation="relu")(inputs)
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    else:
        x = inputs
        for _ in range(value):
            x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def stream(shape, count: int):
    """Batches of images, made as they are needed."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.random((BATCH, *shape), np.float32) * 255
    for start in range(0, count, BATCH):
        yield x[: count - start]


def statistics_mib(model) -> float:
    """What statistics take: the formula in `dqa_keras.calibration.statistics`."""
    import numpy as np

    from dqa_keras.layers import quantizer_layers

    kept, sampled, temporary, parameters = 0, 0, 0, 0
    for layer in quantizer_layers(model):
        *spatial, channels = layer.activation_shape
        samples = BATCH * min(128, int(np.prod(spatial)))
        kept += 4096 * channels
        sampled += 4 * samples * channels
        temporary = max(temporary, (12288 + 16 * samples) * channels)
        parameters = max(parameters, 81920 * channels)
    return (kept + max(sampled + temporary, parameters)) / MIB


def point(kind: str, value: int, ranking: str) -> dict:
    import dqa_keras as dqa

    model = network(kind, value)
    config = dqa.DQAConfig(ranking=ranking)
    quantized = dqa.quantize_model(model, config)
    shape = model.input_shape[1:]
    count = value if kind == "images" else 256

    def calibrate(images: int) -> float:
        start = time.perf_counter()
        dqa.calibrate(quantized, stream(shape, images), batch_size=BATCH, verbose=0)
        return time.perf_counter() - start

    for x in stream(shape, 2 * BATCH):
        quantized.predict_on_batch(x)
    predicting = peak_mib()
    few = calibrate(BATCH)
    few = min(few, calibrate(BATCH))
    seconds = calibrate(count)
    return {
        "value": value,
        "seconds": seconds - few if kind == "images" else seconds,
        "peak_mib": peak_mib(),
        "predict_mib": predicting,
        "formula_mib": predicting + statistics_mib(quantized),
    }


def measured(kind: str, value: int, ranking: str = "mse") -> dict:
    command = [sys.executable, __file__, "--point", kind, str(value), ranking]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row = json.loads(done.stdout.splitlines()[-1])
    print(kind, ranking, {name: round(x, 2) for name, x in row.items()}, flush=True)
    return row


def exponent(rows: list[dict], name: str) -> float:
    import numpy as np

    values, measured = ([row[key] for row in rows] for key in ("value", name))
    return float(np.polyfit(np.log(values), np.log(measured), 1)[0])


def plot(series: dict[str, list[dict]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dqa"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6.4), sharey="row")
    for column, kind in enumerate(POINTS):
        shown: set[int] = set()
        of_kind = [item for item in series.items() if item[0].startswith(kind)]
        for (label, rows), color, marker in zip(of_kind, COLORS, "oDs^", strict=False):
            values = [row["value"] for row in rows]
            shown.update(values)
            ranking = label.removeprefix(kind).strip() or "mse"
            text = f"{ranking}: exponent {exponent(rows, 'seconds'):.2f}"
            for row, name in ((0, "seconds"), (1, "peak_mib")):
                heights = [one[name] for one in rows]
                style = {"color": color, "marker": marker, "label": text}
                axes[row][column].plot(values, heights, **style)
        for row in (0, 1):
            axes[row][column].set_xscale("log")
            ticks = sorted(shown)
            axes[row][column].set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            axes[row][column].minorticks_off()
            axes[row][column].grid(True, which="major", alpha=0.3)
        axes[0][column].legend(loc="upper left", fontsize="small")
        axes[1][column].set_xlabel(kind)
        axes[0][column].set_xlabel(kind)
    axes[0][0].set_yscale("log")
    axes[0][0].set_ylabel("seconds")
    highest = max(row["peak_mib"] for rows in series.values() for row in rows)
    axes[1][0].set_ylim(0, 1.08 * highest)
    axes[1][0].set_ylabel("peak memory of the process (MiB)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=arguments.output, help="file for the figures")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        kind, value, ranking = options.point
        print(json.dumps(point(kind, int(value), ranking)))
        return
    series = {
        kind: [measured(kind, value) for value in values]
        for kind, values in POINTS.items()
    }
    for ranking in rankings():
        values = GREEDY_CHANNELS if ranking == "greedy" else OTHER_CHANNELS
        series[f"channels {ranking}"] = [
            measured("channels", value, ranking) for value in values
        ]
    exponents = {name: exponent(rows, "seconds") for name, rows in series.items()}
    peaks = [row["peak_mib"] for row in series["images"]]
    every = [row for rows in series.values() for row in rows]
    memory = max(peaks) / min(peaks)
    formula = max(abs(row["peak_mib"] / row["formula_mib"] - 1) for row in every)
    for name, power in exponents.items():
        print(f"time against {name}: exponent {power:.3f}")
    print(f"memory, 1,000 to 50,000 images: {memory:.3f}x (at most 1.05)")
    print(f"memory, measured against the formula: within {100 * formula:.1f} %")
    if options.json:
        result = {
            "exponents": exponents,
            "memory_ratio": memory,
            "formula_error": formula,
            "series": series,
        }
        results.write(options.json, result)
        plot(series, options.json.with_suffix(".svg"))


if __name__ == "__main__":
    main()
