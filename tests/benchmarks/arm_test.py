"""`dqa bench arm`: the plugin counts what a guest executes; figures are its counts."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
ARM = runpy.run_path(str(ROOT / "benchmarks" / "arm.py"))
TOOLS = ("gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64")

# A loop of nine instructions, three times; each other one is of a class by itself.
PROGRAM = """
#include <unistd.h>
__attribute__((noinline)) void work(const int *at) {
  asm volatile(
      "mov w2, #3\\n"
      "1: sdot v0.4s, v1.16b, v2.16b\\n"
      "sdot v0.4s, v1.16b, v2.4b[3]\\n"
      "smmla v0.4s, v1.16b, v2.16b\\n"
      "smull v0.8h, v1.8b, v2.8b\\n"
      "smlal2 v0.4s, v1.8h, v2.h[1]\\n"
      "ldr q1, [%0]\\n"
      "ldp q1, q2, [%0]\\n"
      "subs w2, w2, #1\\n"
      "b.ne 1b\\n"
      : : "r"(at) : "v0", "v1", "v2", "w2", "cc", "memory");
}
int main(void) {
  static const int values[8];
  getpgid(424242);
  work(values);
  getpgid(424242);
}
"""


@pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"
)
def test_each_instruction_counts_once_in_its_class(tmp_path, monkeypatch):
    (tmp_path / "program.c").write_text(PROGRAM)
    plugin, program = tmp_path / "plugin.so", tmp_path / "program"
    source = ROOT / "export/native/count/plugin.c"
    for command in (
        ["gcc", "-shared", "-fPIC", source, "-o", plugin],
        ["aarch64-linux-gnu-gcc", "-static", "-O1", "-march=armv8.6-a",
         tmp_path / "program.c", "-o", program],
    ):  # fmt: skip
        subprocess.run(command, check=True)
    monkeypatch.setitem(ARM["count"].__globals__, "BUILD", tmp_path)
    counts = ARM["count"]([str(program)], "max")["work"]
    # With the move in front of the loop and the return behind it.
    assert counts == {
        "all": 29, "sdot": 6, "smmla": 3, "long_multiplies": 6, "memory": 6,
        "branches": 4,
    }  # fmt: skip


def test_figures_are_those_of_the_results():
    results = json.loads((ROOT / "benchmarks/results/arm.json").read_text())
    figures = (ROOT / "docs/figures.md").read_text()
    for name, cores in results.items():
        for core, row in cores.items():
            kinds = [row[kind]["all"] / 1e6 for kind in ("float", "int8", "packed")]
            millions = " | ".join(f"{number:.1f}" for number in kinds)
            ratio = f"{row['packed_to_int8']:.2f}x"
            assert f"{core} | {millions} | {ratio} |" in figures, name
