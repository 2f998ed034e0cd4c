"""Latency of float, int8 and packed models in LiteRT, paired on the same threads.

    python benchmarks/latency.py --json benchmarks/results/latency.json

Random weights, one image, XNNPACK for what LiteRT runs. Every turn of a model is a
fresh process that runs it for a while and gives the median; ratios are medians of the
rounds' ratios. Prints, too, where the packed model's time goes.

"coded" is the packed model with Huffman-coded skips, where that saves memory.
`--isa avx2` hides newer instructions from the runtime, not from LiteRT. Rows of
networks that are not measured stay in the JSON file.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from shared import arguments, networks, results

_KINDS = ("float", "int8", "packed", "coded")
_GROUPS = {
    # With their transforms and their requantizing.
    "tiles": ("WINOGRAD",),
    "unpack": ("LOAD",),
    "pack": ("STORE",),
    "sums and averages": ("ADD", "AVERAGE"),
    "move": (
        "QUANTIZE_INPUT",
        "MAX_POOL",
        "NEAREST",
        "BILINEAR",
        "CONCAT",
        "DEPTH_TO_SPACE",
    ),
}


def turn(path: Path, library: str, isa: str, threads: int, seconds: float) -> float:
    """Median milliseconds of a model's runs in this process."""
    # The interpreter alone: importing Keras would take longer than the runs.
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, load_delegate

    delegates = [load_delegate(library, {"isa": isa})] if library else []
    run = Interpreter(str(path), num_threads=threads, experimental_delegates=delegates)
    run.allocate_tensors()
    detail = run.get_input_details()[0]
    values = np.random.default_rng(0).random(detail["shape"]) * 100
    run.set_tensor(detail["index"], values.astype(detail["dtype"]))
    run.invoke()
    spent: list[float] = []
    while len(spent) < 2 or sum(spent) < seconds:
        start = time.perf_counter()
        run.invoke()
        spent.append(time.perf_counter() - start)
    return 1e3 * statistics.median(spent)


def measure(name: str, options, threads: int, library: str) -> dict:
    times: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for _ in range(options.rounds):
        for kind in _KINDS:
            command = [
                sys.executable, __file__, "--turn",
                str(options.folder / f"{name}.{kind}.tflite"),
                "" if kind in ("float", "int8") else library, options.isa, str(threads),
                str(options.seconds),
            ]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            times[kind].append(float(done.stdout.split()[-1]))
    return {
        "threads": threads,
        "ms": {kind: statistics.median(values) for kind, values in times.items()},
        "packed_to_int8": statistics.median(
            ours / theirs
            for ours, theirs in zip(times["packed"], times["int8"], strict=True)
        ),
        "coded_to_packed": statistics.median(
            ours / theirs
            for ours, theirs in zip(times["coded"], times["packed"], strict=True)
        ),
        "rounds": times,
    }


def shares(name: str, folder: Path, isa: str) -> dict[str, float]:
    """Which part of the runtime's time goes where, on one thread."""
    import numpy as np

    from dqa_keras.export.packed import pack
    from dqa_keras.export.plan.encoding import encode
    from dqa_keras.export.plan.ops import OpCode
    from dqa_keras.export.plan.runtime import NativeRuntime

    data = (folder / f"{name}.packed.tflite").read_bytes()
    seconds = np.zeros(len(OpCode) + 1)
    for plan, constants in pack.read_plans(data):
        run = NativeRuntime(encode(plan), constants, isa)
        inputs = [np.random.default_rng(0).random(size) for size in run.input_sizes]
        run(inputs)
        spent = run.profile()
        run(inputs)
        seconds += spent
    requantize = seconds[-1]
    # A profile requantizes convolutions twice.
    parts = {
        "multiply": seconds[OpCode.CONV] - 2 * requantize + seconds[OpCode.DEPTHWISE],
        "requantize": requantize,
    }
    for group, codes in _GROUPS.items():
        parts[group] = sum(seconds[OpCode[code]] for code in codes)
    total = sum(parts.values())
    return {part: float(spent / total) for part, spent in parts.items()}


def main() -> None:
    if sys.argv[1:2] == ["--turn"]:
        path, library, isa, threads, seconds = sys.argv[2:]
        print(turn(Path(path), library, isa, int(threads), float(seconds)))
        return
    parser = networks.parser(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=arguments.count, default=5)
    parser.add_argument("--threads", type=arguments.count, nargs="*", default=[1, 2])
    parser.add_argument(
        "--seconds", type=arguments.duration, default=1.0, help="of a turn"
    )
    parser.add_argument("--isa", default="auto", help="of the runtime")
    options = parser.parse_args()
    from dqa_keras.export.plan import runtime

    if options.isa not in runtime.ISAS:
        parser.error(f"--isa must be one of {', '.join(runtime.ISAS)}")
    networks.prepare(options.networks, options.folder)
    library = runtime.library_path()
    result: dict[str, dict] = {}
    for name in options.networks:
        rows = []
        for threads in options.threads:
            row = measure(name, options, threads, library)
            rows.append(row)
            ms = ", ".join(f"{kind} {value:.2f}" for kind, value in row["ms"].items())
            print(
                f"{name}, {threads} thread(s): {ms} ms; packed over int8 "
                f"{row['packed_to_int8']:.2f}, coded over packed "
                f"{row['coded_to_packed']:.2f}",
                flush=True,
            )
        parts = shares(name, options.folder, options.isa)
        result[name] = {"isa": options.isa, "runs": rows, "shares": parts}
        print(
            "  "
            + ", ".join(f"{part} {100 * share:.0f} %" for part, share in parts.items())
        )
    if options.json:
        results.write(options.json, {**results.read(options.json), **result})


if __name__ == "__main__":
    main()
