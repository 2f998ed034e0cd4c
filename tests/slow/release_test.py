"""A release as somebody gets it: in an environment of its own, away from the checkout.

`make release` builds what is looked at here, and says where it is.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

VERSIONS = Path(__file__).resolve().parents[1] / "versions"
MACHINES = {"x86_64": "Advanced Micro Devices X86-64", "aarch64": "AArch64"}
ARM_VERSION = (3, 11)  # of Debian's Python

if "DQA_DIST" not in os.environ:
    pytest.skip("make release builds what is tested here", allow_module_level=True)
DIST, CLEAN, ARM = (
    Path(os.environ[f"DQA_{name}"]) for name in ("DIST", "CLEAN", "ARM")
)


def wheel(machine):
    (wheel,) = DIST.glob(f"*_{machine}.whl")
    return wheel


def run(*command, folder, **variables):
    """Standard output of a command that is away from the checkout."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def emulated(*command, folder):
    python = ARM / "usr" / "bin" / "python3.11"
    emulator = ("qemu-aarch64-static", "-cpu", "cortex-a76", "-L", ARM, python)
    return run(*emulator, *command, folder=folder, PYTHONPATH=str(ARM / "site"))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """The compiled files of each wheel, by machine and name."""
    extracted = {}
    for machine in MACHINES:
        folder = tmp_path_factory.mktemp(machine)
        with zipfile.ZipFile(wheel(machine)) as files:
            for name in files.namelist():
                if name.endswith(".so"):
                    stem = Path(name).name.split(".")[0]
                    extracted[machine, stem] = files.extract(name, folder)
    return extracted


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed file and an input, written by the clean environment."""
    folder = tmp_path_factory.mktemp("packed")
    run(CLEAN / "bin" / "python", VERSIONS / "write.py", folder, folder=folder)
    return folder


def test_source_archive_is_of_one_time_and_nobody():
    (path,) = DIST.glob("*.tar.gz")
    with tarfile.open(path) as files:
        members = files.getmembers()
    assert [member.name for member in members] == sorted(m.name for m in members)
    assert len({member.mtime for member in members}) == 1
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    names = {member.name.split("/", 1)[-1] for member in members}
    assert {"export/native/codec/codec.h", "LICENSE", "dqa_keras/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_wheels_have_the_same_files_for_their_machine(libraries):
    contents = {}
    for machine in MACHINES:
        with zipfile.ZipFile(wheel(machine)) as files:
            assert files.testzip() is None
            contents[machine] = {n.replace(machine, "*") for n in files.namelist()}
            (name,) = [n for n in files.namelist() if n.endswith("/WHEEL")]
            tags = Parser().parsestr(files.read(name).decode()).get_all("Tag")
        version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
        assert [re.sub(r"2_\d+", "2_*", tag) for tag in tags] == [
            f"{version}-{version}-manylinux_2_*_{machine}"
        ]
    assert contents["x86_64"] == contents["aarch64"]
    names = {"_codec", "_delegate"}
    assert libraries.keys() == {(machine, n) for machine in MACHINES for n in names}
    for (machine, _), path in libraries.items():
        header = run("readelf", "-h", path, folder=DIST)
        assert re.search(r"Machine: +(.*)", header)[1] == MACHINES[machine]


def test_clean_environment_quantizes_exports_and_runs_packed(packed, tmp_path):
    python, dqa = CLEAN / "bin" / "python", CLEAN / "bin" / "dqa"
    run(python, "-m", "pip", "check", folder=tmp_path)
    program = """
import keras, numpy as np
keras.utils.set_random_seed(0)
layers = [keras.layers.Conv2D(8, 3, activation="relu") for _ in range(3)]
layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
keras.Sequential([keras.Input((12, 12, 1)), *layers]).save("m.keras")
x = np.random.default_rng(0).normal(size=(32, 12, 12, 1)).astype("float32")
np.savez("data.npz", x=x, y=np.zeros(32, int))
np.save("x.npy", x[:1])
"""
    run(python, "-c", program, folder=tmp_path)
    asked = ("--model=m.keras", "--data=data.npz", "--bits=4", "--output=q.keras")
    run(dqa, "quantize", *asked, folder=tmp_path)
    options = ("--mode=packed", "--strict", "--samples=x.npy")
    run(
        dqa, "export", "--model=q.keras", "--output=q.tflite", *options, folder=tmp_path
    )
    program = """
import dqa_keras, numpy as np, pathlib
from dqa_keras.export import load_packed, read_metadata
interpreter = load_packed("q.tflite")
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load("x.npy"))
interpreter.invoke()
output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
print(float(abs(output).max()), len(read_metadata("q.tflite").tables))
print(pathlib.Path(dqa_keras.__file__).parent)
"""
    largest, tables, place = run(python, "-c", program, folder=tmp_path).split()
    assert float(largest) > 0
    assert int(tables) == 3
    assert Path(place).is_relative_to(CLEAN)


def test_aarch64_runs_a_packed_file_to_the_same_bytes(libraries, packed):
    program, python = VERSIONS / "run.py", CLEAN / "bin" / "python"
    files = (packed, "ai")
    library = libraries["x86_64", "_delegate"]
    ours = run(python, program, library, *files, folder=packed)
    theirs = emulated(program, libraries["aarch64", "_delegate"], *files, folder=packed)
    digests = [line.split()[0] for line in (ours + theirs).splitlines()]
    assert len(digests) == 4
    assert len(set(digests)) == 1
    assert {path.name for path in packed.glob("*.npy")} == {"model.npy", "coded.npy"}


@pytest.mark.skipif(
    sys.version_info[:2] != ARM_VERSION, reason="Debian's Python is of another version"
)
def test_aarch64_codec_packs_to_the_same_bytes(libraries, tmp_path):
    program = VERSIONS / "codec.py"
    python = CLEAN / "bin" / "python"
    ours = run(python, program, libraries["x86_64", "_codec"], folder=tmp_path)
    theirs = emulated(program, libraries["aarch64", "_codec"], folder=tmp_path)
    assert theirs.splitlines()[1] == "aarch64 neon"
    assert ours.splitlines()[0] == theirs.splitlines()[0]


def test_list_of_parts_is_what_is_installed():
    bill = json.loads((DIST / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {part["name"].lower().replace("-", "_") for part in bill["components"]}
    assert {"dqa_keras", "tensorflow", "keras", "numpy", "ai_edge_litert"} <= listed
    installed = json.loads(
        run(CLEAN / "bin" / "pip", "list", "--format=json", folder=DIST)
    )
    assert listed == {part["name"].lower().replace("-", "_") for part in installed}


def test_sums_are_those_of_the_files():
    lines = (DIST / "SHA256SUMS").read_text().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    assert sums.keys() == {path.name for path in DIST.iterdir()} - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((DIST / name).read_bytes()).hexdigest() == digest
