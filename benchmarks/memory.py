"""Memory that activations take in float, int8 and packed models.

    python benchmarks/memory.py --json benchmarks/results/memory.json --svg memory.svg

Two figures for each file, weights apart in the first:

- live: bytes of all tensors that an op of the schedule reads, writes or leaves for a
  later one, input and output included; a `DQA` op counts its whole arena. For LiteRT's
  own kernels this is a lower bound: its pools fragment, and XNNPACK keeps tables.
- process: growth of a fresh process' anonymous memory, from before the interpreter is
  made to after the second run: pools, tables and repacked weights.

"bytes" is the packed model with a byte for each stored code: what packing itself gives.
"coded" is the packed model with Huffman-coded skips where they make the arena smaller;
"spilled" is what rows needed beyond their room in it, on an image that calibration did
not see but of its kind: noise. Images compress differently. Rows of networks that are
not measured stay in the JSON file.
"""

import importlib
import subprocess
import sys
from pathlib import Path

from shared import arguments, networks, results


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


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise ValueError("this needs Linux's /proc")


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


def process_growth(path: Path) -> int:
    """What one interpreter adds to a process; run in a fresh one."""
    # Whatever is only needed once must be there already.
    for name in ("ai_edge_litert.interpreter", "dqa_keras.export"):
        importlib.import_module(name)
    before = anonymous()
    interpreter = networks.interpreter(path)
    for _ in range(2):
        interpreter.invoke()
    return anonymous() - before


def measure(name: str, folder: Path) -> dict:
    result = {}
    for kind in networks.KINDS:
        path = folder / f"{name}.{kind}.tflite"
        live, border = live_bytes(path.read_bytes())
        command = [sys.executable, __file__, "--one", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result[kind] = {
            "live_peak": max(live),
            "inputs_and_outputs": border,
            "process": int(done.stdout.split()[-1]),
            "file": path.stat().st_size,
            "live": live,
        }
        if kind == "coded":
            result[kind]["spilled"] = spilled_bytes(path.read_bytes())
    return result


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
    parser = networks.parser(__doc__.splitlines()[0])
    parser.add_argument("--svg", type=arguments.output, help="file for a picture")
    parser.add_argument("--one", type=Path, help=networks.argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(process_growth(options.one))
        return
    networks.prepare(options.networks, options.folder)
    result = {name: measure(name, options.folder) for name in options.networks}
    for name, kinds in result.items():
        for kind, row in kinds.items():
            mib = {key: row[key] / 2**20 for key in row if key != "live"}
            print(
                f"{name:13} {kind:7} live {mib['live_peak']:8.3f} MiB, of which input "
                f"and output {mib['inputs_and_outputs']:6.3f}; process "
                f"{mib['process']:7.1f} MiB; file {mib['file']:6.2f} MiB"
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
