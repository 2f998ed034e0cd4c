"""A process that calibrates, for the tests that need more than one or kill it.

    python tests/worker.py '{"output": "state.npz", ...}'

Options, all of them but `output` optional:

- `strategy`: `"workers"` (as TF_CONFIG says) or `"devices"` (two logical CPU devices)
- `rankings`: calibrations whose outcome goes to `output`
- `checkpoint`: of one more calibration, whose batches are announced by a line each
- `ranking`: of that calibration, if not "mse"
- `die`: the image of it at which the process kills itself
- `die_group`: the group of trials at which it does
- `values`: how many values trials compute at once
- `slow`: seconds before each of its batches
- `images`: how many images this process has, if not all of them
"""

import json
import os
import signal
import sys
import time
from contextlib import nullcontext

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import dqa_keras as dqa
from dqa_keras.calibration import partial_run, statistics
from dqa_keras.calibration.checkpoint import Checkpoint
from dqa_keras.layers import quantizer_layers

BATCH = 8
IMAGES = 100


def network():
    """Two quantizers, one of both signs, behind random weights."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2), name="x")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="a")(inputs)
    x = keras.layers.Conv2D(6, 3, activation="tanh", name="b")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def quantized(ranking="mse"):
    config = dqa.DQAConfig(bits=3, extra_bits=2, ranking=ranking)
    return dqa.quantize_model(network(), config)


def images():
    return np.random.default_rng(0).normal(size=(IMAGES, 6, 6, 2)).astype(np.float32)


def state(model):
    """All that calibration decides, by layer and weight."""
    return {
        f"{layer.name}/{weight.name}": np.asarray(weight)
        for layer in quantizer_layers(model)
        for weight in layer.weights
    }


def batches(options):
    """Batches whose ends are not those of the rounds, and what is to happen there."""
    x = images()[: options.get("images", IMAGES)]
    for start in range(0, len(x), 5):
        print(start, flush=True)
        time.sleep(options.get("slow", 0))
        if start >= options.get("die", len(x)):
            os.kill(os.getpid(), signal.SIGKILL)
        yield x[start : start + 5]


def scope(options):
    import tensorflow as tf

    if options.get("strategy") == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    if options.get("strategy") == "devices":
        cpu = tf.config.list_physical_devices("CPU")[0]
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    return nullcontext()


def counted_groups(options):
    """Groups of trials that this process makes, a list that grows."""
    groups = []
    outputs = partial_run.PartialRun.outputs

    def counting(runs, group, x):
        # The first are those of the unquantized model.
        if len(groups) > options.get("die_group", len(groups)):
            os.kill(os.getpid(), signal.SIGKILL)
        groups.append(group)
        return outputs(runs, group, x)

    partial_run.PartialRun.outputs = counting
    partial_run._VALUES = options.get("values", partial_run._VALUES)
    return groups


def calibrate_to_checkpoint(options):
    """Ends with a line that says how many rounds were this process's part."""
    computed = []
    compute = statistics._LocalStatistics.compute

    def counting(share, turn):
        results = compute(share, turn)
        computed.extend(results)
        return results

    statistics._LocalStatistics.compute = counting
    try:
        dqa.calibrate(
            quantized(options.get("ranking", "mse")),
            batches(options),
            batch_size=BATCH,
            verbose=0,
            checkpoint=options["checkpoint"],
        )
    except (dqa.LostWorkerError, ValueError) as error:
        print(error, flush=True)
        sys.exit(3 if isinstance(error, dqa.LostWorkerError) else 2)
    print(len(computed), flush=True)


def main(options):
    # What a shell starts in the background would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Checkpoint.seconds = 0  # one after every turn
    states = {}
    groups = counted_groups(options)
    with scope(options):
        for ranking in options.get("rankings", []):
            model = quantized(ranking)
            dqa.calibrate(model, images(), batch_size=BATCH, verbose=0)
            states.update((f"{ranking}/{k}", v) for k, v in state(model).items())
        np.savez(options["output"], **states)
        print(f"{len(groups)} groups of trials", flush=True)
        if "checkpoint" in options:
            calibrate_to_checkpoint(options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
