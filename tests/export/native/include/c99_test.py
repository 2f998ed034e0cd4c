"""The public headers, as a program in C99 uses them."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from programs import Builder

from dqa_keras.export.plan.encoding import encode
from dqa_keras.export.plan.ops import OpCode, Window
from dqa_keras.export.plan.reference import Reference
from dqa_keras.export.plan.runtime import NativeRuntime, library_path, op_names
from dqa_keras.export.plan.scheduling import schedule

NATIVE = Path(__file__).parents[4] / "export" / "native"
HEADERS = sorted(path.name for path in (NATIVE / "include" / "dqa").glob("*.h"))
COMPILER = shutil.which("gcc") or shutil.which("cc")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


def compiled(source, target, *arguments):
    """Compiles a C file against the public headers, with every warning an error."""
    command = [COMPILER, *STRICT, f"-I{NATIVE / 'include'}", str(source)]
    subprocess.run([*command, *arguments, "-o", str(target)], check=True)


def conv_case():
    """A plan with a convolution, as the blocks of bytes that a case has."""
    build = Builder((9, 7, 5))
    first = build.conv(build.input, build.codes((9, 7, 20)), Window())
    build.output(build.conv(first, build.codes((9, 7, 6)), Window(3, 3, top=1, left=1)))
    plan, constants = schedule(build.program)
    x = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
    outputs, _ = Reference(plan, constants)([x])
    blocks = [encode(plan), constants, b"", bytes([1, len(outputs)]), x.tobytes()]
    return blocks + [np.ascontiguousarray(output).tobytes() for output in outputs]


@needs_compiler
@pytest.mark.parametrize("header", HEADERS)
def test_each_header_is_c99_by_itself(header, tmp_path):
    source = tmp_path / "one.c"
    source.write_text(f'#include "dqa/{header}"\n#include "dqa/{header}"\n')
    compiled(source, tmp_path / "one.o", "-c")


@needs_compiler
def test_a_c_caller_gets_the_profile_that_the_header_promises(tmp_path):
    case = tmp_path / "conv.case"
    case.write_bytes(
        b"".join(struct.pack("<Q", len(block)) + block for block in conv_case())
    )
    source = NATIVE / "tests" / "runtime" / "c99_caller.c"
    library = tmp_path / "libdqa_delegate.so"
    library.symlink_to(library_path())
    program = tmp_path / "caller"
    compiled(source, program, str(library), f"-Wl,-rpath,{tmp_path}")
    run = subprocess.run([program, case], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    seconds = {
        name: float(number)
        for name, number in (line.split() for line in run.stdout.splitlines())
    }
    assert list(seconds) == [*op_names(), "requantizing"]
    assert seconds["CONV"] > 0
    assert seconds["requantizing"] > 0
    assert seconds["WINOGRAD"] == 0


def test_python_counts_the_op_codes_of_the_header():
    assert op_names() == [code.name for code in OpCode]
    blocks = conv_case()
    seconds = NativeRuntime(blocks[0], blocks[1]).profile()
    assert len(seconds) == len(op_names()) + 1
