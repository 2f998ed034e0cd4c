"""Runs one of the benchmarks that the README's figures come from.

Example:
  dqa bench cost --help
  dqa bench cost --json cost.json

The benchmarks lie in benchmarks/ of the repository; further flags are theirs.
"""

import argparse
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from absl import flags

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def define(values: flags.FlagValues) -> None:
    """The command has no flags of its own; it hands on what it gets."""
    values.set_gnu_getopt(False)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    programs = [path for path in _FOLDER.rglob("*.py") if path.parent.name != "shared"]
    paths = {path.stem: path for path in sorted(programs)}
    if not paths:
        raise ValueError("dqa bench needs a checkout of the repository, not a wheel")
    if not arguments or arguments[0] not in paths:
        raise ValueError(
            f"bench takes the name of a benchmark: {', '.join(sorted(paths))}. "
            f"Received: {arguments[0] if arguments else 'nothing'}"
        )
    sys.argv = arguments
    sys.path.append(str(_FOLDER))  # they import `shared` from there
    with _one_line_errors():
        runpy.run_path(str(paths[arguments[0]]), run_name="__main__")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Raises ValueError for what a benchmark says of its flags and of its files."""
    usual = argparse.ArgumentParser.error

    def refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
        name = Path(parser.prog).stem
        raise ValueError(f"bench {name}: {message} (see dqa bench {name} --help)")

    # Each benchmark makes its own parser, out of reach from here but for its class.
    argparse.ArgumentParser.error = refuse  # type: ignore[assignment, method-assign]
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.code, str):
            raise ValueError(stop.code) from stop
        raise
    finally:
        # What was there before: of the same type.
        argparse.ArgumentParser.error = usual  # type: ignore[method-assign]
