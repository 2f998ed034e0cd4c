"""Every code block of README and docs is run, or named here with the reason it is not.

The Python blocks and `dqa` commands of a page run from top to bottom, in one namespace
and one folder. Kotlin is compiled by `make android`, README's Python by readme_test, C
by litert2_page_test.
"""

import importlib
import re
import shlex

import adb_lines
import pytest
import small_cifar10
from absl import flags
from dqa_launcher import COMMANDS
from page_blocks import DOCS, PAGES, ROOT, blocks, commands

from dqa_keras.cli import main

MAKE = "".join(
    path.read_text()
    for path in (
        ROOT / "Makefile",
        *sorted(ROOT.glob("export/*/*.mk")),
        *ROOT.glob("*/*.mk"),
    )
)
CI = (ROOT / ".ci" / "run").read_text()

# Commands that no test runs as they stand, and why. What can be is checked: flags, the
# target of make, the extra of pip.
NOT_RUN = {
    "pip install '.[demo]'": (
        "would change the tests' own environment; bounds and release install it"
    ),
    "make android 'ANDROID_NDK=$ANDROID_HOME/ndk/27.2.12479018'": (
        "needs Android's NDK; .ci/run makes the target without"
    ),
    "dqa bench phone float.tflite int8.tflite packed.tflite": (
        "needs a phone; make phone-test measures with a script in adb's place"
    ),
}
# How commands begin that run in another test of that page: too long for here, or
# several processes.
RUN_ELSEWHERE = {
    "pip install 'dqa_keras[demo] @ git+https": "slow/commands_test.py",
    "dqa evaluate --model resnet32 --weights resnet32_cifar10.npz --data cifar10 "
    "--data_dir tfds --json": "slow/commands_test.py",
    "export 'TF_CONFIG=": "slow/distribution_test.py",
    "dqa quantize --model m.keras --data data.npz --output m.tflite --workers": (
        "slow/distribution_test.py"
    ),
}


def parsed(arguments):
    """Checks a `dqa` command line with the command's own parser."""
    name, *rest = arguments
    assert name in COMMANDS
    values = flags.FlagValues()
    importlib.import_module(f"dqa_keras.cli.{name}").define(values)
    left = values([f"dqa {name}", *rest])[1:]
    if name == "bench":
        (path,) = (ROOT / "benchmarks").rglob(f"{left[0]}.py")
        check_benchmark(path, left[1:])


def check_benchmark(path, arguments):
    """Checks that a benchmark exists and knows its flags."""
    source = path.read_text()
    for shared in (ROOT / "benchmarks").glob("shared/*.py"):
        if re.search(rf"^from shared import .*\b{shared.stem}\b", source, re.M):
            source += shared.read_text()
    for word in arguments:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{path.name} has no flag {word}"


def made_by_ci():
    """Every target that `.ci/run` makes, those that come before another with it."""
    targets = set(re.findall(r"[\w-]+", " ".join(re.findall(r"^make (.*)$", CI, re.M))))
    while True:
        more = {
            name
            for target in targets
            for line in re.findall(rf"^{target}:(.*)$", MAKE, re.M)
            for name in re.findall(r"[\w-]+", line)
        } - targets
        if not more:
            return targets
        targets |= more


def check(words):
    """Checks one command that is not run: it exists, and its flags do."""
    tool, *arguments = words
    if tool == "dqa":
        parsed(arguments)
    elif tool == "make":
        for target in arguments:
            if "=" not in target:
                assert re.search(rf"^{target}:", MAKE, re.M), f"no make {target}"
    elif tool == "python":
        check_benchmark(ROOT / arguments[0], arguments[1:])
    elif tool == "pip":
        for extra in re.findall(r"\[(\w+)\]", " ".join(arguments)):
            assert re.search(rf"^{extra} =$", (ROOT / "setup.cfg").read_text(), re.M)
    else:
        assert tool == "export", f"nothing checks the command {tool!r}"


def run(page, words):
    """Runs one command of a page, unless it is among those that are not run here."""
    tool, *arguments = words
    command = shlex.join(words)
    elsewhere = [
        test for start, test in RUN_ELSEWHERE.items() if command.startswith(start)
    ]
    if command in NOT_RUN:
        check(words)
    elif elsewhere:
        check(words)
        assert f'blocks("{page}")' in (ROOT / "tests" / elsewhere[0]).read_text()
    elif tool == "make":
        assert set(arguments) <= made_by_ci(), f".ci/run does not run {command}"
    else:
        assert tool == "dqa", f"nothing runs {command}"
        with pytest.raises(SystemExit) as end:
            main.run(arguments)
        assert end.value.code == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "resnet32_cifar10.npz" in page.read_text():  # not part of the repository
        small_cifar10.write(tmp_path)
    namespace = {}
    for number, (language, code) in enumerate(blocks(page.stem)):
        if language == "python" and page.stem != "README":
            exec(compile(code, f"{page.name}, block {number}", "exec"), namespace)
        elif language == "sh" and code.startswith("adb "):
            adb_lines.check(code, tmp_path, apart={"libdqa_delegate.so"})
        elif language == "sh":
            for words in commands(code):
                run(page.stem, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_block_is_of_a_kind_that_is_tested(page):
    for language, code in blocks(page.stem):
        assert language in {"python", "sh", "kotlin", "c", "text"}, code
        assert language != "kotlin" or page.name in {"android.md", "litert2.md"}
        assert language != "c" or page.name == "litert2.md"
        # Not code: who writes some under this name hides it from the tests. What
        # README's example prints is compared by readme_test.
        assert language != "text" or "->" in code or page.stem == "README"


def test_what_is_not_run_here_is_still_there():
    there = [
        shlex.join(words)
        for page in PAGES
        for language, code in blocks(page.stem)
        if language == "sh"
        for words in commands(code)
    ]
    for start in (*NOT_RUN, *RUN_ELSEWHERE):
        assert any(line.startswith(start) for line in there), start


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
            check([tool, *arguments])


def test_pages_that_readme_names_are_in_the_site():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in DOCS:
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.M), page
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}" in index
