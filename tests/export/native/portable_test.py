"""The core without threads and without vector instructions, built by CMake."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NATIVE = ROOT / "export" / "native"


def run(*command, **environment):
    return subprocess.run(
        [str(part) for part in command],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    ).stdout


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake")
def test_the_portable_core_computes_the_same_bytes(tmp_path):
    build, cases = tmp_path / "build", tmp_path / "cases"
    configure = ("cmake", "-S", NATIVE, "-B", build, "-DCMAKE_BUILD_TYPE=Debug")
    run(*configure, "-DCMAKE_CXX_FLAGS_DEBUG=-O1")
    run("cmake", "--build", build, "--target", "plan_test_portable", "-j", 2)
    make_cases = NATIVE / "tests" / "runtime" / "make_cases.py"
    folders = [ROOT / "tests" / "export", *filter(None, [os.environ.get("PYTHONPATH")])]
    run(
        sys.executable, make_cases, cases, PYTHONPATH=os.pathsep.join(map(str, folders))
    )
    files = sorted(cases.glob("*.case"))
    out = run(build / "plan_test_portable", *files)
    # Scalar kernels alone, asked for 1, 2 and 3 threads.
    assert re.match(
        rf"{3 * len(files)} runs of {len(files)} plans, .*: as expected", out
    )
    if shutil.which("nm"):
        symbols = run("nm", "-C", build / "libdqa_portable.a")
        assert "dqa_runtime_run" in symbols
        assert not re.search(r"pthread_create|std::thread|avx2_depthwise", symbols)
