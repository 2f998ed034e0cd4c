"""Damaged files: each is read, or refused with one line, in little time and memory.

Seeded, and as many of them each time.
"""

import contextlib
import io
import json
import resource
import signal
import struct
import zipfile
import zlib

import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.cli import main
from dqa_keras.cli.loading import load_keras
from dqa_keras.export import MetadataError, export_tflite, read_metadata
from dqa_keras.export.litert import flatbuffer
from dqa_keras.export.litert.metadata import CONFIG_NAME
from dqa_keras.export.litert.residual_table import NAME
from dqa_keras.export.packed.pack import OP_NAME

SECONDS = 10  # for one file; each takes some hundredths
KILOBYTES = 300_000  # that this process may grow by
SIZES = [0, 1, 2**7, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
VALUES = [None, True, -1, 0, 2**31, 1e300, "", "x" * 300, [], {}, [[]], {"a": None}]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=3, extra_bits=2))
    x = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
    dqa.calibrate(quantized, x, verbose=0)
    return quantized


@pytest.fixture(scope="module")
def tflite(model, tmp_path_factory):
    """A packed file: it has all metadata, and plans."""
    path = tmp_path_factory.mktemp("fuzz") / "model.tflite"
    x = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    export_tflite(model, path, mode="packed", samples=x, labels=list("abcd"))
    return path.read_bytes()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as files:
        return {name: files.read(name) for name in files.namelist()}


@pytest.fixture(autouse=True)
def bounded():
    """Ends a test that hangs, and fails one that takes memory."""

    def hangs(*_):
        raise TimeoutError(f"a file took more than {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < KILOBYTES


def damaged(rng, data):
    """The bytes with a few changed, overwritten by sizes, moved, cut off or added."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(changed)))
        match rng.integers(6):
            case 0:
                changed[at] ^= 1 << rng.integers(8)
            case 1:
                changed[at] = rng.integers(256)
            case 2:
                at -= at % 4
                changed[at : at + 4] = struct.pack("<I", rng.choice(SIZES))
            case 3:
                source = int(rng.integers(len(changed)))
                part = changed[source : source + int(rng.integers(1, 64))]
                changed[at : at + len(part)] = part
            case 4:
                del changed[at : at + int(rng.integers(1, 64))]
            case 5:
                changed = changed[: max(at, 8)]
    return bytes(changed)


def altered(rng, value):
    """A JSON value with one of the values in it replaced or removed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return VALUES[rng.integers(len(VALUES))]
    changed = value.copy()
    keys = list(changed) if isinstance(changed, dict) else range(len(changed))
    key = keys[rng.integers(len(keys))]
    if rng.random() < 0.1:
        del changed[key]
    else:
        changed[key] = altered(rng, changed[key])
    return changed


def checked(data):
    """Tables or a plan with the checksum that belongs to them, as a liar would."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def inspected(*arguments):
    """Exit code of `dqa inspect`, which must say one line if it is not 0."""
    out, err = io.StringIO(), io.StringIO()
    signal.alarm(SECONDS)
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main.run(["inspect", *map(str, arguments)])
    code = stopped.value.code
    assert code in (0, 2)
    if code:
        assert out.getvalue() == ""
        assert err.getvalue().startswith("dqa: ")
        assert err.getvalue().count("\n") == 1
    return code


def read(path):
    """Whether the metadata can be read; what cannot must be a MetadataError."""
    signal.alarm(SECONDS)
    try:
        read_metadata(path)
    except MetadataError:
        return False
    return True


def check_tflite(path, data):
    """The number of ways in which a file was refused."""
    path.write_bytes(data)
    readable = read(path)
    assert inspected(path) == (0 if readable else 2)
    return (not readable) + inspected("--plan", path) // 2


def test_damaged_tflite(tflite, tmp_path):
    path, refused = tmp_path / "m.tflite", 0
    assert check_tflite(path, tflite) == 0
    for seed in range(400):
        refused += check_tflite(path, damaged(np.random.default_rng(seed), tflite))
    assert refused > 100


def test_tflite_whose_metadata_lies(tflite, tmp_path):
    path, refused = tmp_path / "m.tflite", 0
    model = flatbuffer.parse(tflite)
    buffers = {entry.name.decode(): entry.buffer for entry in model.metadata}
    graph = model.subgraphs[0]
    names = [flatbuffer._op_name(code) for code in model.operatorCodes]
    plan = next(
        graph.tensors[op.inputs[-2]].buffer
        for op in graph.operators
        if names[op.opcodeIndex] == OP_NAME
    )
    for seed in range(300):
        rng = np.random.default_rng(seed)
        number = [buffers[NAME], buffers[CONFIG_NAME], plan][seed % 3]
        before = model.buffers[number].data
        data = bytes(before)
        if number == buffers[CONFIG_NAME]:
            data = json.dumps(altered(rng, json.loads(data))).encode()
        else:
            data = checked(damaged(rng, data))
        model.buffers[number].data = np.frombuffer(data, np.uint8)
        refused += check_tflite(path, flatbuffer.serialize(model))
        model.buffers[number].data = before
    assert refused > 100


def check_keras(path):
    """Whether a file is refused; with the one message if so."""
    if inspected(path) == 0:
        return False
    signal.alarm(SECONDS)
    with pytest.raises(ValueError, match="cannot load"):
        load_keras(path)
    return True


def zipped(path, contents):
    with zipfile.ZipFile(path, "w") as files:
        for name, data in contents.items():
            files.writestr(name, data)


def test_damaged_keras(saved, tmp_path):
    path, refused = tmp_path / "m.keras", 0
    zipped(path, saved)
    assert not check_keras(path)
    whole = path.read_bytes()
    for seed in range(60):
        path.write_bytes(damaged(np.random.default_rng(seed), whole))
        refused += check_keras(path)
    assert refused > 30


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("part", ["config.json", "model.weights.h5"])
def test_keras_whose_parts_lie(saved, tmp_path, part):
    path, refused = tmp_path / "m.keras", 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        data = saved[part]
        if part.endswith(".json") and seed % 2:
            data = json.dumps(altered(rng, json.loads(data))).encode()
        else:
            data = damaged(rng, data)
        zipped(path, {**saved, part: data})
        refused += check_keras(path)
    assert refused > 5
