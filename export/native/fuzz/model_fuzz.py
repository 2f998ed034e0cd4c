"""Mutated packed files in LiteRT, with the delegate under sanitizers.

python model_fuzz.py LIBRARY RUNS SEED FOUND_FOLDER FILE...

Every run changes a packed `.tflite` in one of the ways of `MUTATIONS` and runs it in a
process that has LIBRARY, the delegate built with AddressSanitizer and
UndefinedBehaviorSanitizer. The same seed gives the same files. LiteRT itself is not
built for hostile files: where a process dies without a frame of the delegate on its
stack, that is counted and told, and not an error here. A stack with the delegate on it,
or undefined behaviour, is: the file is kept in FOUND_FOLDER and the exit status is 1.
"""

import collections
import os
import random
import select
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dqa_keras.export.litert import flatbuffer

# A file that takes longer asks for much work, which is no crash.
_SECONDS = 20

_SUMMARY = "SUMMARY: "

_ASAN = ":".join(
    (
        "detect_leaks=0",  # Python's own
        "allocator_may_return_null=1",
        "max_allocation_size_mb=4096",
        # Which library a frame belongs to is all that matters here.
        "stack_trace_format='    #%n %p in %f %S (%m+%o)'",
    )
)


def _op(model: Any, chance: random.Random) -> Any:
    """One of the DQA ops."""
    graph = flatbuffer.Graph(model)
    return chance.choice([op for op in graph.ops if graph.kind(op) == "DQA"])


def _buffer(model: Any, op: Any, which: int) -> Any:
    tensors = model.subgraphs[0].tensors
    return model.buffers[tensors[int(op.inputs[which])].buffer]


def _changed(data: bytes, chance: random.Random, begin: int = 0) -> bytearray:
    """Some numbers of 1, 2 or 4 bytes moved, at a border, or taken from elsewhere."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        width = chance.choice((1, 2, 4))
        if len(out) - begin <= width:
            break
        at = chance.randrange(begin, len(out) - width)
        old = int.from_bytes(out[at : at + width], "little")
        elsewhere = chance.randrange(begin, len(out) - width)
        new = chance.choice(
            (
                old + chance.randint(-4, 4),
                chance.randrange(4),
                0xFFFFFFFF >> chance.randrange(32),
                int.from_bytes(out[elsewhere : elsewhere + width], "little"),
                old ^ 1 << chance.randrange(8 * width),
            )
        )
        out[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, "little")
    return out


def _sealed(data: bytearray) -> bytearray:
    """With a checksum that is right."""
    data[-4:] = struct.pack("<I", zlib.crc32(data[:-4]))
    return data


def _resized(data: bytes, chance: random.Random) -> bytes:
    """Cut off, or longer."""
    if chance.random() < 0.5:
        return data[: chance.randrange(len(data) + 1)]
    return data + bytes(chance.randrange(1, 200))


def _array(data: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(bytes(data), np.uint8)


def plan(model: Any, chance: random.Random) -> None:
    """Numbers of a plan, mostly with a right checksum; seldom its length."""
    buffer = _buffer(model, _op(model, chance), -2)
    data = bytes(buffer.data)
    if chance.random() < 0.1:
        buffer.data = _array(_resized(data, chance))
        return
    changed = _changed(data, chance, begin=12)
    buffer.data = _array(_sealed(changed) if chance.random() < 0.9 else changed)


def constants(model: Any, chance: random.Random) -> None:
    """Weights and arrays, sometimes of another length."""
    buffer = _buffer(model, _op(model, chance), -1)
    data = bytes(buffer.data)
    resize = chance.random() < 0.3
    buffer.data = _array(_resized(data, chance) if resize else _changed(data, chance))


def metadata(model: Any, chance: random.Random) -> None:
    """A metadata buffer or its name."""
    entry = chance.choice(model.metadata)
    buffer = model.buffers[entry.buffer]
    data = bytes(buffer.data)
    kind = chance.randrange(5)
    if kind == 0:
        entry.name = b"DQA_RESIDUE"
    elif kind == 1:
        buffer.data = _array(_resized(data, chance))
    elif kind == 2:
        entry.buffer = chance.randrange(len(model.buffers))
    else:
        changed = _changed(data, chance)
        buffer.data = _array(_sealed(changed) if kind == 3 else changed)


def border(model: Any, chance: random.Random) -> None:
    """Shape or type of a tensor that a DQA op reads or writes."""
    op = _op(model, chance)
    number = chance.choice([int(t) for t in (*op.inputs, *op.outputs)])
    tensor = model.subgraphs[0].tensors[number]
    shape = [int(side) for side in tensor.shape]
    kind = chance.randrange(4)
    if kind == 0:
        tensor.type = chance.randrange(18)
    elif kind == 1:
        shape = shape[chance.randrange(len(shape)) :] + [1] * chance.randrange(3)
    else:
        at = chance.randrange(len(shape))
        sides = (0, 1, -1, shape[at] + 1, shape[at] - 1, 2 * shape[at], 1 << 20)
        shape[at] = chance.choice(sides)
    tensor.shape, tensor.shapeSignature = shape, None


def tensors(model: Any, chance: random.Random) -> None:
    """Which tensors a DQA op reads and writes."""
    op = _op(model, chance)
    name = chance.choice(("inputs", "inputs", "outputs"))
    numbers = [int(tensor) for tensor in getattr(op, name)]
    at = chance.randrange(len(numbers))
    kind = chance.randrange(5)
    if kind == 0:
        del numbers[at]
    elif kind == 1:
        numbers.insert(at, numbers[at])
    elif kind == 2:
        numbers[at] = -1
    elif kind == 3:
        numbers[at] = chance.randrange(len(model.subgraphs[0].tensors))
    else:
        chance.shuffle(numbers)
    setattr(op, name, numbers)


def options(model: Any, chance: random.Random) -> None:
    """The custom options of a DQA op, which the delegate does not need."""
    op = _op(model, chance)
    op.customOptions = _array(_changed(bytes(op.customOptions), chance))


MUTATIONS: dict[str, tuple[int, Callable[[Any, random.Random], None]]] = {
    "plan": (6, plan),
    "constants": (2, constants),
    "metadata": (3, metadata),
    "border": (3, border),
    "tensors": (3, tensors),
    "options": (1, options),
}
_ANYWHERE = "anywhere"  # bytes of the file, LiteRT's structures included


def mutated(files: list[bytes], chance: random.Random) -> tuple[str, bytes]:
    """A kind of mutation, and a file that has one."""
    file = chance.choice(files)
    names = [*MUTATIONS, _ANYWHERE]
    shares = [*(share for share, _ in MUTATIONS.values()), 2]
    (name,) = chance.choices(names, shares)
    if name == _ANYWHERE:
        return name, bytes(_changed(file, chance))
    model = flatbuffer.parse(file)
    MUTATIONS[name][1](model, chance)
    return name, flatbuffer.serialize(model)


class Runner:
    """A process that runs files.

    Args:
        library: Path of the sanitized delegate.
        log: Path that its standard error goes to.
    """

    def __init__(self, library: str, log: Path) -> None:
        # libstdc++ as well, or the sanitizer does not find where exceptions are thrown.
        preload = " ".join(
            subprocess.check_output(["g++", f"-print-file-name={name}"], text=True)
            for name in ("libasan.so", "libstdc++.so.6")
        ).replace("\n", "")
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("model_runner.py")), library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            env={
                **os.environ,
                "LD_PRELOAD": preload,
                "ASAN_OPTIONS": _ASAN,
                "UBSAN_OPTIONS": "print_stacktrace=1",
            },
        )
        if self._answer(60) != b"!":
            raise RuntimeError(f"the process did not start: {log.read_text()}")

    def _answer(self, seconds: float) -> bytes | None:
        """The next byte; empty if the process died, `None` if it takes too long."""
        out = self._process.stdout
        if out is None or not select.select([out], [], [], seconds)[0]:
            return None
        return out.read(1)

    def run(self, file: bytes, threads: int) -> bytes | None:
        """As `_answer`, for a file."""
        if self._process.stdin is None:
            raise RuntimeError("the process has no standard input")
        self._process.stdin.write(struct.pack("<IB", len(file), threads) + file)
        return self._answer(_SECONDS)

    def end(self) -> int:
        """Ends the process; its status."""
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._log.close()
        return self._process.wait()


def is_ours(report: str, library: str) -> bool:
    """Whether a process died of the delegate: what it says of its end names it."""
    _, _, end = report.partition("ERROR: AddressSanitizer")
    return Path(library).name in end or "runtime error:" in report


def main(library: str, runs: int, seed: int, folder: Path, paths: list[Path]) -> int:
    """Runs them all; the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "model_fuzz.log"
    files = [path.read_bytes() for path in paths]
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    runner = Runner(library, log)
    for file in files:
        if runner.run(file, 1) != b"r":
            raise RuntimeError(f"the files must run. Received: {log.read_text()}")
    ours = 0
    for run in range(runs):
        name, file = mutated(files, random.Random(f"{seed}/{run}"))
        answer = runner.run(file, 1 + run % 2)
        if answer:
            counts[name, {b"r": "ran", b"e": "refused"}[answer]] += 1
            continue
        status = runner.end()
        report = log.read_text(errors="replace")
        if answer is None:
            counts[name, f"over {_SECONDS} s"] += 1
        elif is_ours(report, library):
            ours += 1
            counts[name, "CRASHED"] += 1
            kept = folder / f"model-{seed}-{run}.tflite"
            kept.write_bytes(file)
            (folder / f"model-{seed}-{run}.log").write_text(report)
            said = [line for line in report.splitlines() if _SUMMARY in line]
            print(f"{kept}: {name}, exit status {status}: {said}", flush=True)
        else:
            counts[name, "LiteRT crashed"] += 1
            (folder / f"litert-{seed}-{run}.log").write_text(report)
        runner = Runner(library, log)
    runner.end()
    for (name, what), count in sorted(counts.items()):
        print(f"{count:6d}  {name:10s}{what}")
    print(f"{runs} runs, {ours} crashes of the delegate")
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(
        main(
            sys.argv[1],
            int(sys.argv[2]),
            int(sys.argv[3]),
            Path(sys.argv[4]),
            [Path(argument) for argument in sys.argv[5:]],
        )
    )
