"""Memory that activations take in float, int8 and packed models.

    python benchmarks/memory.py --json benchmarks/results/memory.json --svg memory.svg

Figures for each file, weights apart in the first:

- live: bytes of all tensors that an op of the schedule reads, writes or leaves for a
  later one, input and output included; a `DQA` op counts its whole arena. For LiteRT's
  own kernels this is a lower bound: its pools fragment, and XNNPACK keeps tables.
- process: growth of a fresh process from before the interpreter is made to after the
  second run, on one thread and on two: anonymous memory (pools, tables and repacked
  weights) and, beside it, pages of mapped files. The median of five processes.

"bytes" is the packed model with a byte for each stored code: what packing itself gives.
"coded" is the packed model with Huffman-coded skips where they make the arena smaller;
"spilled" is what rows needed beyond their room in it, on an image that calibration did
not see but of its kind: noise. Images compress differently. Rows of networks that are
not measured stay in the JSON file.
"""

import importlib.util
import statistics
import subprocess
import sys
from pathlib import Path

from shared import arguments, networks, results

THREADS = (1, 2)
RUNS = 5


def live_bytes(data: bytes) -> tuple[list[int], int]:
    """Live bytes at each op of a file, and those of inputs and outputs alone."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    from dqa_keras.export.litert import flatbuffer
    from dqa_keras.export.packed import pack

    model = flatbuffer.parse(data)
    graph = flatbuffer.Graph(model)
    tensors = model.subgraphs[0].tensors
    width = {schema.TensorType.INT8: 1, schema.TensorType.UINT8: 1}

    def size(tensor: int) -> int:
        shape = tensors[tensor].shape
        count = int(np.prod(shape)) if shape is not None else 1
        return count * width.get(tensors[tensor].type, 4)

    ends = {int(tensor) for tensor in model.subgraphs[0].outputs}
    first = {int(tensor): 0 for tensor in model.subgraphs[0].inputs}
    last = {tensor: len(graph.ops) - 1 for tensor in ends}
    for number, op in enumerate(graph.ops):
        for tensor in map(int, op.outputs):
            first.setdefault(tensor, number)
            last.setdefault(tensor, number)
        for tensor in map(int, op.inputs):
            if tensor >= 0 and not graph.is_constant(tensor) and tensor not in ends:
                last[tensor] = max(last.get(tensor, 0), number)
    arenas = iter(plan.arena for plan, _ in pack.read_plans(data))
    live = []
    for number, op in enumerate(graph.ops):
        total = sum(
            size(tensor)
            for tensor, first_op in first.items()
            if first_op <= number <= last.get(tensor, -1)
        )
        is_ours = graph.kind(op) == pack.OP_NAME
        live.append(total + (next(arenas) if is_ours else 0))
    border = {int(tensor) for tensor in model.subgraphs[0].inputs} | ends
    return live, sum(map(size, border))


def spilled_bytes(data: bytes) -> int:
    """What coded rows of a file's first op need beyond its arena, on a new image."""
    import numpy as np

    from dqa_keras.export.litert import flatbuffer, residual_table
    from dqa_keras.export.packed import pack
    from dqa_keras.export.plan.encoding import encode
    from dqa_keras.export.plan.runtime import NativeRuntime

    tables = flatbuffer.metadata(data)[residual_table.NAME]
    plan, constants = pack.read_plans(data)[0]
    run = NativeRuntime(encode(plan), constants, tables=tables)
    random = np.random.default_rng(1)
    run([random.integers(0, 256, size) for size in run.input_sizes])
    return run.spilled_bytes


def process_growth(path: Path) -> dict[str, dict[str, int]]:
    """What an interpreter adds to a process, by threads: the median of fresh ones."""
    script = Path(__file__).parent / "shared" / "process_growth.py"
    folder = Path(importlib.util.find_spec("dqa_keras").origin).parent
    (delegate,) = folder.glob("_delegate*.so")
    result = {}
    for threads in THREADS:
        command = [sys.executable, script, path, str(threads)]
        if networks.is_packed(path):
            command.append(delegate)
        runs = []
        for _ in range(RUNS):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append([int(word) for word in done.stdout.split()[-2:]])
        columns = zip(*runs, strict=True)
        anonymous, file = (statistics.median(column) for column in columns)
        result[str(threads)] = {"anonymous": anonymous, "file": file}
    return result


def measure(name: str, folder: Path) -> dict:
    result = {}
    for kind in networks.KINDS:
        path = folder / f"{name}.{kind}.tflite"
        live, border = live_bytes(path.read_bytes())
        result[kind] = {
            "live_peak": max(live),
            "inputs_and_outputs": border,
            "process": process_growth(path),
            "file": path.stat().st_size,
            "live": live,
        }
        if kind == "coded":
            result[kind]["spilled"] = spilled_bytes(path.read_bytes())
    return result


WORDS = {
    "unet": "U-Net 512",
    "mobilenet_v2": "MobileNetV2 224",
    "mobilenet_v2_linear": "the same, `quantize_linear=True`",
    "mobilenet_v2_035": "MobileNetV2 0.35 at 144",
    "resnet32": "ResNet-32",
}


def process_table(result: dict) -> str:
    """What a process grows by, as the page of figures has it."""
    lines = [
        "| network | file | computed | 1 thread | without input, output | 2 threads "
        "| mapped files |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, words in WORDS.items():
        for kind in ("float", "int8", "packed", "coded"):
            row = result.get(name, {}).get(kind, {})
            if "process" not in row:
                continue
            one, two = (row["process"][str(threads)] for threads in THREADS)
            figures = (
                row["live_peak"],
                one["anonymous"],
                one["anonymous"] - row["inputs_and_outputs"],
                two["anonymous"],
                one["file"],
            )
            cells = (f"{figure / 2**20:.2f}" for figure in figures)
            lines.append(f"| {words} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(result: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(result), figsize=(4 * len(result), 3))
    for axis, (name, kinds) in zip(
        axes if len(result) > 1 else [axes], result.items(), strict=True
    ):
        peaks = [kinds[kind]["live_peak"] / 2**20 for kind in networks.KINDS]
        border = [kinds[kind]["inputs_and_outputs"] / 2**20 for kind in networks.KINDS]
        axis.bar(networks.KINDS, peaks, label="activations")
        axis.bar(networks.KINDS, border, label="of which input and output")
        axis.set_title(name)
        axis.set_ylabel("peak of live bytes, MiB")
    figure.legend(*axis.get_legend_handles_labels(), loc="lower center", ncols=2)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(path)


def main() -> None:
    parser = networks.parser(__doc__.splitlines()[0], tuple(WORDS))
    parser.add_argument("--svg", type=arguments.output, help="file for a picture")
    options = parser.parse_args()
    networks.prepare(options.networks, options.folder)
    result = {name: measure(name, options.folder) for name in options.networks}
    for name, kinds in result.items():
        for kind, row in kinds.items():
            both = row["inputs_and_outputs"]
            print(
                f"{name:13} {kind:7} live {row['live_peak'] / 2**20:8.3f} MiB, "
                f"of which input and output {both / 2**20:6.3f}; "
                f"file {row['file'] / 2**20:6.2f} MiB"
            )
            for threads, grown in row["process"].items():
                print(
                    f"{'':13} process, {threads} threads: "
                    f"{grown['anonymous'] / 2**20:8.3f} MiB, without input and output "
                    f"{(grown['anonymous'] - both) / 2**20:8.3f}; mapped files "
                    f"{grown['file'] / 2**20:6.2f} MiB"
                )
        inner = {
            kind: row["live_peak"] - row["inputs_and_outputs"]
            for kind, row in kinds.items()
        }
        print(
            f"{name:13} packed over int8 "
            f"{kinds['packed']['live_peak'] / kinds['int8']['live_peak']:.2f}, without "
            f"input and output {inner['packed'] / inner['int8']:.2f}; over bytes "
            f"{kinds['packed']['live_peak'] / kinds['bytes']['live_peak']:.2f} and "
            f"{inner['packed'] / inner['bytes']:.2f}; with coded skips "
            f"{kinds['coded']['live_peak'] / kinds['packed']['live_peak']:.2f} of it, "
            f"{kinds['coded']['spilled']} bytes spilled"
        )
    if options.json:
        results.write(options.json, {**results.read(options.json), **result})
    if options.svg:
        draw(result, options.svg)


if __name__ == "__main__":
    main()
