"""Commands of the documentation that take minutes: `make commands`. On small data."""

import json
import os
import shlex
import subprocess
import sys
import venv
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


def test_the_tutorials_installation_brings_what_it_says(tmp_path):
    """The repository is this one, from where it lies instead of from the network."""
    (words,) = [
        page_blocks.commands(code)[0]
        for language, code in page_blocks.blocks("tutorial")
        if language == "sh" and code.startswith("pip ")
    ]
    address = "git+https://github.com/dqa-keras/dqa_keras"
    assert words[-1].endswith(address)
    words[-1] = words[-1].replace(address, f"git+file://localhost{page_blocks.ROOT}")
    venv.create(tmp_path / "venv", with_pip=True)
    path = f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}"
    imports = "python -c 'import dqa_keras.export, sklearn'"
    subprocess.run(
        ["bash", "-ec", f"{shlex.join(words)} --quiet && {imports} && dqa --help"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
    )
