"""The C of docs/litert2.md, compiled and run with the LiteRT 2 that the wheels ship.

`make phone-test` fetches LiteRT for Arm and builds our library for it; without them the
C runs on this machine alone.
"""

import shutil
import subprocess
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest
from page_blocks import ROOT, blocks

from dqa_keras.export import load_packed
from dqa_keras.export.plan import runtime

HERE = Path(__file__).parent
ARM = ROOT / "build" / "aarch64"
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]

here = pytest.param(
    {
        "compiler": "gcc",
        "emulator": (),
        "litert": Path(ai_edge_litert.__file__).parent / "libLiteRt.so",
        "ours": runtime.library_path,
    },
    id="x86-64",
    marks=pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler"),
)
on_arm = pytest.param(
    {
        "compiler": "aarch64-linux-gnu-gcc",
        "emulator": (
            *("qemu-aarch64-static", "-cpu", "neoverse-n1"),
            *("-L", "/usr/aarch64-linux-gnu"),
        ),
        "litert": ARM / "phone" / "libLiteRt.so",
        "ours": lambda: ARM / "delegate.so",
    },
    id="aarch64",
    marks=pytest.mark.skipif(
        not (ARM / "phone" / "version").exists(), reason="make phone-test brings LiteRT"
    ),
)


class Program:
    """The page's C as a program for a machine, and what runs it."""

    def __init__(self, folder, compiler, emulator, litert, ours):
        code = [block for language, block in blocks("litert2") if language == "c"]
        source = folder / "packed.c"
        main = (HERE / "packed_main.c").read_text()
        source.write_text("".join(each for each in code if "jni.h" not in each) + main)
        for name, path in (("libLiteRt.so", litert), ("libdqa_delegate.so", ours())):
            shutil.copy(path, folder / name)
        subprocess.run(
            [
                *(compiler, *STRICT, f"-I{ROOT / 'export/native/include'}"),
                *(f"-I{HERE / 'headers'}", source, "-o", folder / "packed"),
                *(folder / "libLiteRt.so", folder / "libdqa_delegate.so"),
                # What libLiteRt.so needs is the loader's to find.
                *(f"-Wl,-rpath,{folder}", "-Wl,--allow-shlib-undefined"),
            ],
            check=True,
        )
        self.command = [*emulator, folder / "packed"]
        self.folder = folder

    def __call__(self, model, image, output_bytes, threads=1):
        """The output's bytes, and why there are none."""
        (self.folder / "in").write_bytes(image.tobytes())
        out = self.folder / "out"
        done = subprocess.run(
            [
                *(*self.command, model, str(threads)),
                *(self.folder / "in", out, str(output_bytes)),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return out.read_bytes() if done.returncode == 0 else None, done.stdout


@pytest.fixture(scope="module", params=[here, on_arm])
def program(request, tmp_path_factory):
    return Program(tmp_path_factory.mktemp("packed"), **request.param)


def expected(path, image):
    """What LiteRT's interpreter gives on this machine."""
    interpreter = load_packed(path)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("skips", ["raw", "coded"])
def test_the_c_of_the_page_gives_the_interpreter_s_bytes(
    program, coded_skip, skips, threads
):
    folder, images = coded_skip
    scores = expected(folder / skips, images[:1])
    output, error = program(folder / skips, images[:1], scores.nbytes, threads)
    assert output == scores.tobytes(), error


def test_the_c_of_the_page_says_why_a_model_does_not_run(program, coded_skip):
    folder, images = coded_skip
    model, size = folder / "raw", 4 * 96 * 96 * 2
    output, error = program(model, np.full_like(images[:1], np.inf), size)
    assert output is None
    assert "inputs must be finite" in error
    output, error = program(model, images[:1, :5], size)
    assert (output, error) == (None, "the input has another size\n")
    output, error = program(model, images[:1], size - 4)
    assert (output, error) == (None, "the output has another size\n")
