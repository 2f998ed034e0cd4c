"""Instructions of an inference on 64-bit Arm: float, int8 and packed models in LiteRT.

    make arm-count
    dqa bench arm --networks resnet32 --json arm.json
    dqa bench arm --networks mobilenet_v2 resnet32 --bound benchmarks/results/arm.json

qemu runs LiteRT for aarch64 on one thread, and a plugin counts what the guest executes
in the second of two runs, by class; for int8 and float with XNNPACK. The count is exact
and says nothing of caches or of how a core orders instructions. "plan" is the runtime
alone, with its functions. `make arm-tools` builds what runs on Arm.

`--bound` counts the plans alone and fails if one executes over 3 % more than the file
says.
"""

import os
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from shared import networks, results

BUILD = Path(__file__).resolve().parents[1] / "build" / "aarch64"
# Without vectors of 2048 bits, which no phone has.
CORES = {"dot product": "neoverse-n1", "I8MM": "max,sve=off,sme=off"}
# In the order in which the plugin writes them.
CLASSES = ("all", "sdot", "smmla", "long_multiplies", "memory", "branches")
KINDS = ("float", "int8", "packed")
NAMES = ("mobilenet_v2", "efficientnet_lite0", "resnet32", "unet")
MOST_GROWTH = 1.03

Counts = dict[str, int]


def count(command: list[str], core: str) -> dict[str, Counts]:
    """Instructions that a guest executes between its marks, by function and class.

    Args:
        command: List of strings. qemu's further flags, the program and its arguments.
        core: String. A processor that qemu emulates.

    Raises:
        RuntimeError: If the guest fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts"
        plugin = f"{BUILD / 'plugin.so'},out={file}"
        done = subprocess.run(
            [
                "nice",
                "-n",
                "10",
                "qemu-aarch64",
                "-cpu",
                core,
                "-plugin",
                plugin,
                *command,
            ],
            env={**os.environ, "PYTHONPATH": str(BUILD / "guest" / "site")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not file.exists():
            raise RuntimeError(f"the guest failed: {done.stderr[-1000:]}")
        functions: dict[str, Counts] = defaultdict(lambda: dict.fromkeys(CLASSES, 0))
        for line in file.read_text().splitlines():
            runs, *counts, function = line.split(maxsplit=len(CLASSES) + 1)
            for name, number in zip(CLASSES, counts, strict=True):
                functions[function][name] += int(runs) * int(number)
    return functions


def total(functions: dict[str, Counts]) -> Counts:
    """Their sum by class."""
    return {
        name: sum(counts[name] for counts in functions.values()) for name in CLASSES
    }


def in_litert(path: Path, core: str) -> Counts:
    """What LiteRT for aarch64 executes for a model."""
    guest = BUILD / "guest"
    command = ["-L", str(guest), str(guest / "usr/bin/python3.11")]
    command += [str(Path(__file__).parent / "shared" / "arm_guest.py"), str(path)]
    if path.name.endswith(".packed.tflite"):
        command.append(str(BUILD / "delegate.so"))
    return total(count(command, core))


def cases(path: Path, folder: Path) -> list[str]:
    """Writes a packed model's plans, with random inputs, for `run_plan`."""
    import numpy as np

    from dqa_keras.export.packed import pack
    from dqa_keras.export.plan.encoding import encode
    from dqa_keras.export.plan.records import Kind, Type
    from dqa_keras.export.plan.runtime import NativeRuntime

    names = []
    for number, (plan, constants) in enumerate(pack.read_plans(path.read_bytes())):
        run = NativeRuntime(encode(plan), constants)
        random = np.random.default_rng(0)
        types = [
            np.uint8 if buffer.type == Type.CODES else np.float32
            for buffer in plan.buffers
            if buffer.kind == Kind.INPUT
        ]
        inputs = [
            (100 * random.random(size)).astype(dtype)
            for size, dtype in zip(run.input_sizes, types, strict=True)
        ]
        outputs = run(inputs)
        blocks = [encode(plan), constants, b"", bytes([len(inputs), len(outputs)])]
        blocks += [array.tobytes() for array in [*inputs, *outputs]]
        names.append(str(folder / f"{number}.case"))
        Path(names[-1]).write_bytes(
            b"".join(struct.pack("<Q", len(block)) + block for block in blocks)
        )
    return names


def of_plans(path: Path, core: str) -> dict[str, Counts]:
    """What the runtime alone executes for a packed model, by function."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(BUILD / "run_plan"), "0", *cases(path, Path(folder))]
        functions = count(command, core)
    names = subprocess.run(
        ["c++filt", "-p"], input="\n".join(functions), capture_output=True, text=True,
        check=True,
    ).stdout.splitlines()  # fmt: skip
    totals: dict[str, Counts] = defaultdict(lambda: dict.fromkeys(CLASSES, 0))
    for name, counts in zip(names, functions.values(), strict=True):
        short = name.replace("(anonymous namespace)::", "").replace("dqa::", "")
        for kind in CLASSES:
            totals[short][kind] += counts[kind]
    return totals


def measure(path: Path, name: str) -> dict:
    """All counts of a network, on each core."""
    result: dict[str, dict] = {}
    for core, cpu in CORES.items():
        row: dict = {
            kind: in_litert(path / f"{name}.{kind}.tflite", cpu) for kind in KINDS
        }
        row["packed_to_int8"] = row["packed"]["all"] / row["int8"]["all"]
        functions = of_plans(path / f"{name}.packed.tflite", cpu)
        row["plan"] = total(functions)
        row["functions"] = {
            function: counts
            for function, counts in sorted(
                functions.items(), key=lambda item: -item[1]["all"]
            )
            if counts["all"] >= 0.01 * row["plan"]["all"]
        }
        result[core] = row
        millions = ", ".join(f"{kind} {row[kind]['all'] / 1e6:.2f}" for kind in KINDS)
        print(
            f"{name}, {core}: {millions} M; packed over int8 "
            f"{row['packed_to_int8']:.2f}",
            flush=True,
        )
    return result


def check(path: Path, name: str, known: dict) -> bool:
    """Whether a network's plans execute no more than they did, but for a little."""
    good = True
    for core, cpu in CORES.items():
        now = total(of_plans(path / f"{name}.packed.tflite", cpu))["all"]
        before = known[name][core]["plan"]["all"]
        print(f"{name}, {core}: {now} instructions, {now / before - 1:+.2%}")
        good = good and now <= MOST_GROWTH * before
    return good


def main() -> int:
    parser = networks.parser(__doc__.splitlines()[0], NAMES)
    parser.add_argument("--bound", type=Path, help="a JSON file that counts may reach")
    options = parser.parse_args()
    if not (BUILD / "run_plan").exists():
        parser.error("what runs on Arm is missing. Build it: make arm-tools")
    networks.prepare(options.networks, options.folder)
    if options.bound:
        known = results.read(options.bound)
        within = [check(options.folder, name, known) for name in options.networks]
        return 0 if all(within) else 1
    result = {name: measure(options.folder, name) for name in options.networks}
    if options.json:
        results.write(options.json, {**results.read(options.json), **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
