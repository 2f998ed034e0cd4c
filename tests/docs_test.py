"""Code blocks of README and docs run as written; commands are ones that exist.

The Python blocks and `dqa` commands of a page run from top to bottom, in one namespace
and one folder. Kotlin is compiled by `make android`, README's Python by readme_test.
"""

import importlib
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from absl import flags
from dqa_launcher import COMMANDS

from dqa_keras.cli import main

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
MAKE = "".join(
    path.read_text()
    for path in (ROOT / "Makefile", *sorted((ROOT / "export").glob("*/*.mk")))
)

# What a checkout does not hold: these commands are parsed, not run.
_ABSENT = ("resnet32_cifar10.npz", "dqa bench", "dqa demo", "--android", "--workers")


def blocks(text):
    """Pairs (language, code) of the fenced blocks; directives are Sphinx' to check."""
    fences = re.findall(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, re.DOTALL | re.M)
    return [
        (language, textwrap.dedent(code))
        for _, language, code in fences
        if not language.startswith("{")
    ]


def commands(code):
    """The command lines of a shell block, as lists of words."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def parsed(arguments):
    """Checks a `dqa` command line with the command's own parser."""
    name, *rest = arguments
    assert name in COMMANDS
    values = flags.FlagValues()
    importlib.import_module(f"dqa_keras.cli.{name}").define(values)
    left = values([f"dqa {name}", *rest])[1:]
    if name == "bench":
        check_benchmark(ROOT / "benchmarks" / f"{left[0]}.py", left[1:])


def check_benchmark(path, arguments):
    """Checks that a benchmark exists and knows its flags."""
    source = path.read_text() + (ROOT / "benchmarks" / "_networks.py").read_text()
    for word in arguments:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{path.name} has no flag {word}"


def check(words, run):
    """Runs or checks one command of a shell block."""
    tool, *arguments = words
    if tool == "dqa" and (not run or any(a in " ".join(words) for a in _ABSENT)):
        parsed(arguments)
    elif tool == "dqa":
        with pytest.raises(SystemExit) as end:
            main.run(arguments)
        assert end.value.code == 0, shlex.join(words)
    elif tool == "make":
        for target in arguments:
            if "=" not in target:
                assert re.search(rf"^{target}:", MAKE, re.M), f"no make {target}"
    elif tool == "python":
        check_benchmark(ROOT / arguments[0], arguments[1:])
    elif tool == "pip":
        for extra in re.findall(r"\[(\w+)\]", " ".join(arguments)):
            assert re.search(rf"^{extra} =$", (ROOT / "setup.cfg").read_text(), re.M)
    elif tool not in ("adb", "export"):  # a phone; a variable
        raise AssertionError(f"nothing checks the command {tool!r}")


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.stem)
def test_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for number, (language, code) in enumerate(blocks(page.read_text())):
        if language == "python":
            exec(compile(code, f"{page.name}, block {number}", "exec"), namespace)
        elif language == "sh":
            for words in commands(code):
                check(words, run=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_block_is_of_a_kind_that_is_tested(page):
    for language, code in blocks(page.read_text()):
        assert language in {"python", "sh", "kotlin", "text"}, code
        assert language != "kotlin" or page.name == "android.md"
        if language == "sh":
            for words in commands(code):
                check(words, run=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_commands_in_the_text_exist(page):
    for code in re.findall(
        r"`((?:dqa|make|python benchmarks)[^`]*)`", page.read_text()
    ):
        tool, *arguments = shlex.split(" ".join(code.split()))
        if tool == "dqa" and arguments and arguments[0].isalpha():
            if arguments[0] == "COMMAND":
                continue
            command = importlib.import_module(f"dqa_keras.cli.{arguments[0]}")
            values = flags.FlagValues()
            command.define(values)
            if arguments[0] == "bench" and len(arguments) > 1:
                parsed(arguments)
            else:
                for word in arguments[1:]:
                    assert not word.startswith("--") or word[2:] in values, code
        elif tool in ("make", "python"):
            check([tool, *arguments], run=False)


def test_pages_that_readme_names_are_in_the_site():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in DOCS:
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.M), page
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}" in index
