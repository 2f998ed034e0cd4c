"""`dqa bench`: what a benchmark refuses is one line, before any work."""

import sys
from pathlib import Path

import pytest

from dqa_keras.cli import bench, main

NAMES = sorted(
    path.stem
    for path in Path(bench.__file__).parents[2].glob("benchmarks/**/*.py")
    if path.parent.name != "shared"
)


@pytest.fixture
def refused(monkeypatch, capsys):
    def refused(*arguments):
        """What the command says when it exits with 2."""
        for name in ("argv", "path"):  # which a benchmark changes
            monkeypatch.setattr(sys, name, list(getattr(sys, name)))
        with pytest.raises(SystemExit) as stop:
            main.run(["bench", *arguments])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refused


@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_flag_is_one_line(refused, name):
    line = refused(name, "--bogus")
    assert line.startswith(f"dqa: bench {name}: ")
    assert line.endswith(f"(see dqa bench {name} --help)")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "nan", "", "9" * 30, "\u0663"])
@pytest.mark.parametrize("flag", ["rounds", "threads"])
def test_what_is_counted_is_a_whole_number(refused, flag, value):
    line = refused("latency", f"--{flag}={value}")
    assert f"argument --{flag}: must be a whole number in 1..2147483647" in line


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_is_positive(refused, value):
    assert "must be seconds above 0" in refused("latency", f"--seconds={value}")


@pytest.mark.parametrize("value", ["", "folder", "file/x", "\0", "x" * 300])
def test_a_file_for_figures_can_be_written(refused, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    line = refused("cost", f"--json={value}")
    assert "argument --json: must be a file that can be written" in line


@pytest.mark.parametrize("content", ["[]", "not JSON", "3"])
def test_a_foreign_file_is_not_taken_for_figures(refused, content, tmp_path):
    path = tmp_path / "foreign.json"
    path.write_text(content)
    line = refused("coverage", f"--json={path}")
    assert line == f"dqa: {path} must hold an earlier run's figures: name another"
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency", "--isa=guess"], "--isa must be one of auto, "),
        (["coverage", "--json=c", "--models", "guess"], "invalid choice: 'guess'"),
        (
            ["packed_accuracy", "--model=guess", "--weights=w", "--data=d"],
            "--model must be one of ",
        ),
    ],
)
def test_a_name_is_known(refused, arguments, message):
    assert message in refused(*arguments)


def test_the_usual_errors_come_back(refused):
    import argparse

    refused("cost", "--bogus")
    with pytest.raises(SystemExit):
        argparse.ArgumentParser().parse_args(["--bogus"])
