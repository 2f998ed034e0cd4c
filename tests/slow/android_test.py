"""The Android libraries, as far as a machine without Android can judge them.

`make android` builds what is looked at here, and says where it is.
"""

import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLCHAIN = ROOT / "export/android/toolchain"
MOST_BYTES = {"arm64-v8a": 300_000, "armeabi-v7a": 400_000, "x86_64": 500_000}
MACHINES = {"arm64-v8a": "AArch64", "armeabi-v7a": "ARM", "x86_64": "X86-64"}
PAGE = 16384

if "DQA_ANDROID" not in os.environ:
    pytest.skip("make android builds what is tested here", allow_module_level=True)
BUILD, ZIG = Path(os.environ["DQA_ANDROID"]), Path(os.environ["DQA_ZIG"])
every_abi = pytest.mark.parametrize("abi", MACHINES)


def run(*command, **variables):
    """Standard output of a command."""
    done = subprocess.run(
        [*map(str, command)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def library(abi):
    return BUILD / "native" / abi / "libdqa_delegate.so"


def readelf(what, path):
    return run("readelf", "-W", what, path)


def symbols(path):
    """Names that a library takes from others, and those that it gives."""
    taken, given = set(), set()
    for line in readelf("--dyn-syms", path).splitlines():
        words = line.split()
        if len(words) >= 8 and words[4] in ("GLOBAL", "WEAK"):
            names = taken if words[6] == "UND" else given
            names.add(words[7].partition("@")[0])
    return taken, given


def needed(path):
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("--dynamic", path)))


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    """LiteRT's own library for each kind of phone: the system loads it."""
    folder = tmp_path_factory.mktemp("tflite")
    (aar,) = BUILD.glob("jars/tensorflow-lite-2.16.1.aar")
    with zipfile.ZipFile(aar) as files:
        return {
            abi: files.extract(f"jni/{abi}/libtensorflowlite_jni.so", folder)
            for abi in MACHINES
        }


@every_abi
def test_a_library_is_one_that_android_7_loads(abi):
    path = library(abi)
    assert path.stat().st_size <= MOST_BYTES[abi]
    header = readelf("--file-header", path)
    assert re.search(r"Type: +DYN", header)
    assert re.search(rf"Machine: .*{MACHINES[abi]}", header)
    dynamic = readelf("--dynamic", path)
    assert re.findall(r"\(SONAME\).*\[(.*)\]", dynamic) == ["libdqa_delegate.so"]
    for tag in ("(HASH)", "(GNU_HASH)", "BIND_NOW"):
        assert tag in dynamic
    # Android 7 cannot read packed relocations, and takes none in code.
    for tag in ("RELR", "TEXTREL", "RPATH", "RUNPATH", "ANDROID_REL", "VERNEED"):
        assert tag not in dynamic
    assert needed(path) <= {"libc.so", "libdl.so", "libm.so"}


@every_abi
def test_segments_are_for_pages_of_16_kib(abi):
    rows = re.findall(
        r"^  (\w+) +(0x\w+) (0x\w+) 0x\w+ (0x\w+) (0x\w+) ([RWE ]{3}) (\w+)$",
        readelf("--program-headers", library(abi)),
        re.MULTILINE,
    )
    kinds = [row[0] for row in rows]
    assert "TLS" not in kinds
    assert "GNU_RELRO" in kinds
    loads = [row for row in rows if row[0] == "LOAD"]
    ends = []
    for _, offset, address, _, memory, flags, alignment in loads:
        assert int(alignment, 16) == PAGE
        assert (int(address, 16) - int(offset, 16)) % PAGE == 0
        assert not {"W", "E"} <= set(flags)
        # No page has the rights of two segments.
        assert not ends or int(address, 16) // PAGE > (ends[-1] - 1) // PAGE
        ends.append(int(address, 16) + int(memory, 16))
    (stack,) = [row for row in rows if row[0] == "GNU_STACK"]
    assert "E" not in stack[5]


# In Android's C and mathematical libraries long before Android 7.
POSIX = {"frexpf", "getpid", "nearbyintf", "sched_yield"}


@every_abi
def test_it_calls_what_the_system_is_known_to_have(abi, tflite):
    taken, given = symbols(library(abi))
    known = symbols(tflite[abi])[0] | POSIX
    if abi == "armeabi-v7a":  # LiteRT's needs it on 64 bits alone
        known.add("android_set_abort_message")
    assert taken - known == set()
    assert {name for name in given if not name.startswith("dqa_litert_")} == {
        "JNI_OnLoad",
        "tflite_plugin_create_delegate",
        "tflite_plugin_destroy_delegate",
    }
    header = (ROOT / "export/native/include/dqa/litert.h").read_text()
    declared = set(re.findall(r"\b(dqa_litert_\w+)\(", header))
    assert {name for name in given if name.startswith("dqa_litert_")} == declared


def test_every_function_of_the_list_is_called():
    names = configparser.ConfigParser(allow_no_value=True)
    names.read(TOOLCHAIN / "system.ini")
    listed = {name for section in names.sections() for name in names[section]}
    assert listed == set.union(*(symbols(library(abi))[0] for abi in MACHINES))


def test_a_second_build_elsewhere_gives_the_same_bytes(tmp_path):
    for name in ("export/native", "export/android/toolchain"):
        shutil.copytree(ROOT / name, tmp_path / name)
    java = Path(shutil.which("javac")).resolve().parents[1] / "include"
    build = tmp_path / "export/android/toolchain/build.py"
    run(ZIG / "bin/python", build, tmp_path / "out", java, "arm64-v8a")
    again = tmp_path / "out/arm64-v8a/libdqa_delegate.so"
    assert (
        hashlib.sha256(again.read_bytes()).digest()
        == hashlib.sha256(library("arm64-v8a").read_bytes()).digest()
    )


# Kinds of core, and the size of pages where it is not the usual one. Debian's
# libraries lie where its cross compilers put them.
ARM64 = ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", "-cpu")
ARM32 = ("qemu-arm-static", "-L", "/usr/arm-linux-gnueabi")


@pytest.mark.parametrize(
    ("abi", "emulator"),
    [
        ("x86_64", ()),
        ("arm64-v8a", (*ARM64, "max,sve=off,sme=off")),
        ("arm64-v8a", (*ARM64, "neoverse-n1")),
        ("arm64-v8a", (*ARM64, "cortex-a53")),
        ("arm64-v8a", (*ARM64, "neoverse-n1", "-p", PAGE)),
        ("armeabi-v7a", ARM32),
    ],
    ids=["x86_64", "I8MM", "dot product", "no dot product", "16 KiB pages", "32 bits"],
)
def test_plans_give_the_same_bytes_and_failed_allocations_a_message(abi, emulator):
    shim = BUILD / "shim" / abi
    plans = sorted(BUILD.glob("cases/*.case"))
    assert len(plans) > 5
    printed = run(
        *emulator,
        shim / "library_test",
        library(abi),
        *plans,
        LD_LIBRARY_PATH=str(shim),
    )
    assert "as expected" in printed


def test_a_compiled_model_of_litert_2_takes_its_kernel():
    program = """
import sys, pytest
from dqa_keras.export.plan import runtime
runtime.library_path = lambda: sys.argv[1]
sys.exit(pytest.main([sys.argv[2]]))
"""
    printed = run(
        *(sys.executable, "-c", program, library("x86_64")),
        ROOT / "tests/export/native/litert/litert_kernel_test.py",
        LD_LIBRARY_PATH=str(BUILD / "shim/x86_64"),
    )
    assert re.search(r"^[1-9]\d* passed", printed, re.MULTILINE)


def test_the_aar_holds_android_libraries_only(tmp_path):
    with zipfile.ZipFile(BUILD / "dqa-android.aar") as files:
        names = [name for name in files.namelist() if name.endswith(".so")]
        assert names == [f"jni/{abi}/libdqa_delegate.so" for abi in MACHINES]
        for name in names:
            path = files.extract(name, tmp_path)
            system = {"libc.so", "libdl.so", "liblog.so", "libm.so"}
            assert needed(path) <= system, "glibc's libraries have other names"
