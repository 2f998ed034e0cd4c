"""Two workers that calibrate together against one, each limited to one core.

    dqa bench workers --json benchmarks/results/workers.json

ResNet-32 on random images; weights do not change the time. Each worker is a process of
its own, tied to a core. Throughput is that of the images between the first rounds and
the last: a calibration of few images, which traces the graph and decides, is subtracted
from one of many. Prints medians of several rounds, by the clock and by the processes'
CPU time (which a busy machine does not stretch), and whether all workers of all rounds
decided the same to the byte. Exits with 1 if they did not.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 64


def work(rank: int, size: int, images: int) -> None:
    """One worker: calibrates few images, then many, and prints what they took."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    import zlib
    from contextlib import nullcontext

    import keras
    import numpy as np
    import tensorflow as tf

    scope = nullcontext()
    if size > 1:
        scope = tf.distribute.MultiWorkerMirroredStrategy().scope()

    import dqa_keras as dqa
    from dqa_keras.layers import quantizer_layers
    from dqa_keras.models import resnet32

    keras.utils.set_random_seed(0)
    quantized = dqa.quantize_model(resnet32(), dqa.DQAConfig())
    x = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3))
    x = x.astype(np.float32)
    few = 2 * BATCH
    result = {"images": images - few}
    with scope:
        for name, count in (("warm", few), ("few", few), ("many", images)):
            clock, cpu = time.perf_counter(), time.process_time()
            dqa.calibrate(quantized, x[:count], batch_size=BATCH, verbose=0)
            result[name] = (time.perf_counter() - clock, time.process_time() - cpu)
    crc = 0
    for layer in quantizer_layers(quantized):
        for weight in layer.get_weights():
            crc = zlib.crc32(weight.tobytes(), crc)
    print(json.dumps({**result, "state": crc}))


def start(rank: int, size: int, ports: list[int], images: int) -> subprocess.Popen:
    config = {
        "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
        "task": {"type": "worker", "index": rank},
    }
    return subprocess.Popen(
        [sys.executable, __file__, "--work", str(rank), str(size), str(images)],
        env={**os.environ, "TF_CONFIG": json.dumps(config), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def measure(size: int, images: int) -> dict:
    """Images a second of so many workers, by the clock and by CPU time."""
    ports = free_ports(size)
    processes = [start(rank, size, ports, images) for rank in range(size)]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a worker of {size} failed")
    results = [json.loads(output.splitlines()[-1]) for output in outputs]
    clock, cpu = (
        max(one["many"][way] - one["few"][way] for one in results) for way in (0, 1)
    )
    return {
        "by_clock": results[0]["images"] / clock,
        "by_cpu": results[0]["images"] / cpu,
        "states": [one["state"] for one in results],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=arguments.output, help="file for the figures")
    parser.add_argument("--rounds", type=arguments.count, default=3)
    parser.add_argument("--images", type=arguments.count, default=8192)
    parser.add_argument("--work", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return
    rows = []
    for _ in range(options.rounds):
        row = {size: measure(size, options.images) for size in (1, 2)}
        rows.append(row)
        print({size: round(run["by_clock"]) for size, run in row.items()}, "images/s")
    result = {
        f"{way}_ratio": statistics.median(row[2][way] / row[1][way] for row in rows)
        for way in ("by_clock", "by_cpu")
    }
    states = {state for row in rows for run in row.values() for state in run["states"]}
    result["identical"] = len(states) == 1
    result["rounds"] = [{str(size): run for size, run in row.items()} for row in rows]
    print(f"throughput of two workers over one: {result['by_clock_ratio']:.2f}x by the")
    print(f"clock, {result['by_cpu_ratio']:.2f}x by CPU time (at least 1.6 asked)")
    print(f"identical to the byte: {result['identical']}")
    if options.json:
        results.write(options.json, result)
    sys.exit(not result["identical"])


if __name__ == "__main__":
    main()
