"""Commands of the documentation that take minutes: `make commands`. On small data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import page_blocks
import small_cifar10


def test_the_figures_of_resnet32(tmp_path):
    (code,) = [
        code for language, code in page_blocks.blocks("figures") if language == "sh"
    ]
    small_cifar10.write(tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-ec", code],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
    )
    result = json.loads((tmp_path / "benchmarks/results/resnet32.json").read_text())
    # Two presets, three methods, three bits; and the float model.
    assert len(result["rows"]) == 19
