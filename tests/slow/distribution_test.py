"""Calibration by several devices and processes, some of which are lost.

Each process starts TensorFlow, so this has a target of its own: `make distribution`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import page_blocks
import pytest
import worker

import dqa_keras as dqa
from dqa_keras.calibration.checkpoint import Checkpoint

RANKINGS = ["mse", "fisher", "greedy"]


@pytest.fixture(scope="module")
def expected():
    """What one process with one device decides, by ranking."""
    states = {}
    for ranking in RANKINGS:
        model = worker.quantized(ranking)
        dqa.calibrate(model, worker.images(), batch_size=worker.BATCH, verbose=0)
        for name, array in worker.state(model).items():
            states[f"{ranking}/{name}"] = array
    return states


def start(options, **variables):
    return subprocess.Popen(
        [sys.executable, worker.__file__, json.dumps(options)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def tf_configs(count):
    """What TF_CONFIG says to each of so many workers on this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return [
        json.dumps(
            {
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            }
        )
        for index in range(count)
    ]


def start_workers(options):
    """A process for each of the options, which know of each other."""
    return [
        start({"strategy": "workers", **own}, TF_CONFIG=config)
        for own, config in zip(options, tf_configs(len(options)), strict=True)
    ]


def finish(processes):
    """Exit status and output of each."""
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def check(path, expected):
    with np.load(path) as arrays:
        assert set(arrays.files) == set(expected)
        differ = [
            name
            for name, array in expected.items()
            if arrays[name].tobytes() != array.tobytes()
        ]
    assert differ == []


def check_resumes(path, expected):
    """One process goes on from a checkpoint and ends as if nothing had happened."""
    model = worker.quantized()
    images = Checkpoint(path, model, worker.BATCH, None).load().images
    dqa.calibrate(
        model, worker.images(), batch_size=worker.BATCH, verbose=0, checkpoint=path
    )
    for name, array in worker.state(model).items():
        assert array.tobytes() == expected[f"mse/{name}"].tobytes(), name
    assert not Path(path).exists()
    return images


def test_two_devices_decide_what_one_does(expected, tmp_path):
    output = str(tmp_path / "state.npz")
    process = start({"strategy": "devices", "rankings": RANKINGS, "output": output})
    assert finish([process])[0][0] == 0
    check(output, expected)


def test_two_workers_decide_what_one_does_and_one_is_lost(expected, tmp_path):
    options = [
        {
            "rankings": RANKINGS,
            "output": str(tmp_path / f"{rank}.npz"),
            "checkpoint": str(tmp_path / f"{rank}.checkpoint"),
            "die": [1000, 60][rank],
        }
        for rank in (0, 1)
    ]
    (code, output), (lost, _) = finish(start_workers(options))
    for own in options:
        check(own["output"], expected)
    assert lost == -signal.SIGKILL
    assert code == 3
    assert "another worker is gone: worker 0 of 2 cannot reach it" in output
    assert "with a checkpoint they go on" in output
    for own in options:
        assert check_resumes(own["checkpoint"], expected) == 48


def test_three_workers_decide_what_one_does_and_go_on_from_one_checkpoint(
    expected, tmp_path
):
    # Only the second worker has a checkpoint.
    path = tmp_path / "1.checkpoint"
    broken = start({"output": str(tmp_path / "x"), "checkpoint": str(path), "die": 45})
    assert finish([broken])[0][0] == -signal.SIGKILL
    assert path.exists()
    options = [
        {
            "rankings": RANKINGS,
            "output": str(tmp_path / f"{rank}.npz"),
            "checkpoint": str(tmp_path / f"{rank}.checkpoint"),
        }
        for rank in range(3)
    ]
    ends = finish(start_workers(options))
    assert [code for code, _ in ends] == [0, 0, 0]
    # Of 13 rounds 5 were done; the rest is shared out.
    assert [output.split()[-1] for _, output in ends] == ["3", "3", "2"]
    for own in options:
        check(own["output"], expected)
        assert not Path(own["checkpoint"]).exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_what_another_goes_on_from(
    how, expected, tmp_path
):
    path = tmp_path / "c"
    process = start(
        {"output": str(tmp_path / "x"), "checkpoint": str(path), "slow": 0.2}
    )
    for line in process.stdout:
        if line == "60\n":
            process.send_signal(how)
            break
    assert finish([process])[0][0] != 0
    assert check_resumes(path, expected) >= 48


def test_two_workers_share_the_trials(tmp_path):
    options = {"rankings": ["greedy"], "values": 2**12}
    alone = start({**options, "output": str(tmp_path / "alone.npz")})
    pair = start_workers(
        [{**options, "output": str(tmp_path / f"{rank}.npz")} for rank in (0, 1)]
    )
    ends = finish([alone, *pair])
    assert [code for code, _ in ends] == [0, 0, 0]
    whole, first, second = (
        int(re.search(r"(\d+) groups of trials", said).group(1)) for _, said in ends
    )
    assert first < 0.6 * whole
    assert second < 0.6 * whole
    with np.load(tmp_path / "alone.npz") as file:
        expected = dict(file)
    for rank in (0, 1):
        check(tmp_path / f"{rank}.npz", expected)


def test_trials_go_on_after_a_kill(expected, tmp_path):
    path = tmp_path / "c"
    options = {"output": str(tmp_path / "x"), "checkpoint": str(path)}
    process = start({**options, "ranking": "greedy", "die_group": 1})
    assert finish([process])[0][0] == -signal.SIGKILL
    model = worker.quantized("greedy")
    (errors,) = Checkpoint(path, model, worker.BATCH, None).load().errors.values()
    assert errors.shape == (9,)
    assert np.isfinite(errors).all()
    dqa.calibrate(
        model, worker.images(), batch_size=worker.BATCH, verbose=0, checkpoint=path
    )
    for name, array in worker.state(model).items():
        assert array.tobytes() == expected[f"greedy/{name}"].tobytes(), name


def test_workers_that_read_other_data_are_told(tmp_path):
    options = [
        {
            "output": str(tmp_path / f"{rank}.npz"),
            "checkpoint": str(tmp_path / f"{rank}.checkpoint"),
            "images": [100, 95][rank],
        }
        for rank in (0, 1)
    ]
    for code, output in finish(start_workers(options)):
        assert code == 2
        assert "all workers must read the same images. Received: [96, 95]" in output


def test_the_command_quantizes_by_two_workers(tmp_path):
    y = np.arange(worker.IMAGES) % 3
    worker.network().save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=worker.images(), y=y)

    def command(output, *more):
        return [
            Path(sys.executable).with_name("dqa"),
            "quantize",
            *(f"--model={tmp_path}/model.keras", f"--data={tmp_path}/data.npz"),
            *("--bits=3", f"--output={tmp_path / output}", *more),
        ]

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(
            command(f"{index}.keras", "--workers", f"--checkpoint={tmp_path}/c"),
            env={**os.environ, "TF_CONFIG": config},
            **pipes,
        )
        for index, config in enumerate(tf_configs(2))
    ]
    (first, said), (second, also) = finish(processes)
    assert (first, second) == (0, 0)
    assert f"wrote {tmp_path}/0.keras" in said
    assert "worker 1 is done; worker 0 writes" in also
    assert not (tmp_path / "1.keras").exists()
    assert not (tmp_path / "c").exists()
    done = subprocess.run(command("alone.keras"), check=False, timeout=600, **pipes)
    assert done.returncode == 0, done.stderr
    states = [
        worker.state(keras.models.load_model(tmp_path / name))
        for name in ("0.keras", "alone.keras")
    ]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name


def test_the_commands_for_several_machines(tmp_path):
    """Each machine's commands as docs/machines.md has them, all on this machine."""
    blocks = page_blocks.blocks("machines")
    python = next(code for language, code in blocks if language == "python")
    commands = next(code for language, code in blocks if language == "sh")
    subprocess.run([sys.executable, "-c", python], cwd=tmp_path, check=True)
    (theirs,) = re.findall(r"TF_CONFIG='(.*)'", commands)
    ours = tf_configs(len(json.loads(theirs)["cluster"]["worker"]))
    assert json.loads(theirs)["task"] == json.loads(ours[0])["task"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    processes = [
        subprocess.Popen(
            ["bash", "-ec", commands.replace(theirs, config)],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for config in ours
    ]
    assert [code for code, _ in finish(processes)] == [0, 0]
    assert (tmp_path / "m.tflite").stat().st_size > 0
