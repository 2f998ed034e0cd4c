"""Latency of float, int8 and packed models in LiteRT, paired on the same threads.

    python benchmarks/latency.py --rounds 9 --json benchmarks/results/latency.json

Random weights, one image, XNNPACK for what LiteRT runs. The models run in turns; ratios
are medians of the rounds' ratios. Prints, too, where the packed model's time goes.
"""

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import _networks

_GROUPS = {
    "unpack": ("LOAD",),
    "pack": ("STORE",),
    "multiply and requantize": ("CONV", "DEPTHWISE", "COMBINE", "AVERAGE"),
    "move": ("READ", "MAXIMUM", "NEAREST", "BILINEAR", "JOIN"),
}


def measure(name: str, folder: Path, rounds: int, threads: int) -> dict:
    kinds = ("float", "int8", "packed")
    runs = {
        kind: _networks.interpreter(folder / f"{name}.{kind}.tflite", threads)
        for kind in kinds
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for run in runs.values():
        run.invoke()
    start = time.perf_counter()
    runs["packed"].invoke()
    # About a tenth of a second a turn.
    repeats = max(1, round(0.1 / (time.perf_counter() - start)))
    for _ in range(rounds):
        for kind, run in runs.items():
            start = time.perf_counter()
            for _ in range(repeats):
                run.invoke()
            times[kind].append((time.perf_counter() - start) / repeats)
    ratios = [p / q for p, q in zip(times["packed"], times["int8"], strict=True)]
    return {
        "threads": threads,
        "ms": {kind: 1e3 * statistics.median(values) for kind, values in times.items()},
        "packed_to_int8": statistics.median(ratios),
    }


def shares(name: str, folder: Path) -> dict[str, float]:
    """Which part of the runtime's time goes where."""
    import numpy as np

    from dqa_keras.export import packed
    from dqa_keras.export.native_runtime import NativeRuntime
    from dqa_keras.export.plan import Code

    data = (folder / f"{name}.packed.tflite").read_bytes()
    seconds = np.zeros(len(Code))
    for plan, constants in packed.read_plans(data):
        run = NativeRuntime(plan.encode(), constants)
        inputs = [np.random.default_rng(0).random(size) for size in run.input_sizes]
        run(inputs)
        spent = run.profile()
        run(inputs)
        seconds += spent
    return {
        group: float(sum(seconds[Code[code]] for code in codes) / seconds.sum())
        for group, codes in _GROUPS.items()
    }


def main() -> None:
    parser = _networks.parser(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    options = parser.parse_args()
    _networks.prepare(options.networks, options.folder)
    result: dict[str, dict] = {}
    for name in options.networks:
        rows = [
            measure(name, options.folder, options.rounds, threads)
            for threads in options.threads
        ]
        result[name] = {"runs": rows, "shares": shares(name, options.folder)}
        for row in rows:
            ms = ", ".join(f"{kind} {value:.2f}" for kind, value in row["ms"].items())
            print(
                f"{name}, {row['threads']} thread(s): {ms} ms; packed over int8 "
                f"{row['packed_to_int8']:.2f}",
                flush=True,
            )
        parts = result[name]["shares"].items()
        print("  " + ", ".join(f"{part} {100 * share:.0f} %" for part, share in parts))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
