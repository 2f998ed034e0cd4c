"""Memory and time of Huffman-coded skips on real images: the U-Net with CamVid weights.

    dqa bench coded_skips --data_dir tfds --json benchmarks/results/coded_skips.json

The packed model as it is and with `skips="coded"`, at 4 bits with 2 extra ones and with
a budget, base codes coded too in both. Input and output are bytes.

- arena: bytes that the model asks for, input and output apart.
- spilled: what coded rows needed beyond their room in it, on the test image that needed
  most. Memory is both together.
- time: the median over all test images of the ratio of two runs of the same image, one
  after the other, on one thread.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CONFIGS = {
    "4 + 2 bits": {"bits": 4, "extra_bits": 2, "entropy": "all"},
    "budget 2.67": {"budget_bits": 2.67, "entropy": "all"},
}
_CALIBRATION, _RANGES, _BATCH = 200, 16, 50


def spilled(data: bytes, images) -> int:
    """Most bytes that the rows of an image need beyond their room."""
    from dqa_keras.export.litert import flatbuffer, residual_table
    from dqa_keras.export.packed import pack
    from dqa_keras.export.plan.encoding import encode
    from dqa_keras.export.plan.runtime import NativeRuntime

    tables = flatbuffer.metadata(data)[residual_table.NAME]
    ((plan, constants),) = pack.read_plans(data)
    run = NativeRuntime(encode(plan), constants, tables=tables)
    most = 0
    for image in images:
        run([image.ravel()])
        most = max(most, run.spilled_bytes)
    return most


def time_ratio(raw: Path, coded: Path, images) -> float:
    """The time of the second file, of the first one's."""
    import numpy as np

    from dqa_keras.export import load_packed

    runs = [load_packed(path, num_threads=1) for path in (raw, coded)]
    for run in runs:
        run.allocate_tensors()

    def seconds(run, image) -> float:
        run.set_tensor(run.get_input_details()[0]["index"], image[None])
        start = time.perf_counter()
        run.invoke()
        return time.perf_counter() - start

    ratios = []
    for number, image in enumerate(images):
        first, second = runs[:: (1, -1)[number % 2]]  # which one begins changes
        spent = seconds(first, image), seconds(second, image)
        before, after = spent[:: (1, -1)[number % 2]]
        ratios.append(after / before)
        for ends in zip(*(run.get_output_details() for run in runs), strict=True):
            outputs = [
                run.get_tensor(end["index"])
                for run, end in zip(runs, ends, strict=True)
            ]
            if not np.array_equal(*outputs):
                raise SystemExit("coded skips must not change what the model computes")
    return statistics.median(ratios)


def measure(settings: dict, splits, limit: int) -> dict:
    import numpy as np

    import dqa_keras as dqa
    from dqa_keras import models
    from dqa_keras.export import export_tflite

    train, test = (split.map(lambda image, _: image) for split in splits)
    images = list(itertools.islice(test.as_numpy_iterator(), limit or None))
    images = [np.asarray(image).astype(np.uint8) for image in images]
    quantized = dqa.quantize_model(models.unet("camvid"), dqa.DQAConfig(**settings))
    dqa.calibrate(quantized, train.take(_CALIBRATION).batch(_BATCH), verbose=0)
    samples = next(train.batch(_RANGES).as_numpy_iterator())
    row: dict = {"images": len(images)}
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder) / f"{kind}.tflite" for kind in ("raw", "coded")}
        for kind, path in paths.items():
            report = export_tflite(
                quantized, path, mode="packed", skips=kind, inputs="uint8",
                outputs="uint8", samples=samples,
            )  # fmt: skip
            (region,) = report.packed.regions
            row[kind] = {"arena": region.arena, "coded_tensors": region.coded}
        row["coded"]["spilled"] = spilled(paths["coded"].read_bytes(), images)
        row["coded_to_raw_time"] = time_ratio(*paths.values(), images)
    memory = row["coded"]["arena"] + row["coded"]["spilled"]
    row["coded_to_raw_memory"] = memory / row["raw"]["arena"]
    return row


def table(rows: dict) -> str:
    """Memory in KiB and time, as the page of figures has them."""
    lines = [
        "| bits | raw, KiB | coded | of it beyond the room | memory | time |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        memory = row["coded"]["arena"] + row["coded"]["spilled"]
        sizes = (row["raw"]["arena"], memory, row["coded"]["spilled"])
        cells = " | ".join(f"{size / 1024:.1f}" for size in sizes)
        lines.append(
            f"| {name} | {cells} | {row['coded_to_raw_memory']:.2f}x "
            f"| {row['coded_to_raw_time']:.2f}x |"
        )
    return "\n".join(lines)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--data_dir", help="where TFDS keeps prepared datasets")
    flags.add_argument(
        "--limit", type=arguments.limit, default=0, help="test images; 0 takes all"
    )
    flags.add_argument("--json", type=arguments.output, help="file for the figures")
    options = flags.parse_args()
    from dqa_keras import datasets

    splits = datasets.load("camvid", data_dir=options.data_dir)
    result = {}
    for name, settings in CONFIGS.items():
        row = measure(settings, (splits.train, splits.test), options.limit)
        result[name] = row
        print(name, row, flush=True)
    print(table(result))
    if options.json:
        results.write(options.json, {"commit": results.commit(), "rows": result})


if __name__ == "__main__":
    main()
