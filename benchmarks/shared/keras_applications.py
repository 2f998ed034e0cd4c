"""Measures every model of keras.applications, each in a process of its own."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from shared import arguments, results


def model_names() -> list[str]:
    """Names of the functions that build the models."""
    import keras

    return sorted(
        name
        for name in dir(keras.applications)
        if name[0].isupper() and "_" not in name
    )


def measure_all(
    script: str,
    usage: str,
    measure: Callable[[str], dict],
    others: Iterable[str] = (),
) -> tuple[Path, dict[str, dict]]:
    """Runs a benchmark of these models by its command line; prints as it goes.

    The file of figures is written after each model. Models that it holds are not run
    again, so the run may be interrupted. A model that fails has a row with an `error`.

    Args:
        script: Path of the benchmark.
        usage: What it does, for its help.
        measure: Function from a model's name to its row.
        others: Names of models that it builds itself, measured too.

    Returns:
        Path of the file, and the row of each model.
    """
    parser = argparse.ArgumentParser(description=usage)
    parser.add_argument(
        "--json", type=arguments.output, required=True, help="file for the figures"
    )
    parser.add_argument("--models", nargs="*", help="only these; default: all")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        sys.exit()
    names = [*model_names(), *others]
    for name in options.models or ():
        if name not in names:
            parser.error(f"argument --models: invalid choice: {name!r}")
    rows = results.read(options.json)
    for name in options.models or names:
        if name in rows and "error" not in rows[name]:
            continue
        command = [sys.executable, script, "--json", options.json, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            rows[name] = json.loads(done.stdout.splitlines()[-1])
        else:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            rows[name] = {"error": lines[-1]}
        print(name, rows[name], flush=True)
        results.write(options.json, rows)
    failed = sum("error" in row for row in rows.values())
    print(f"{len(rows) - failed} passed, {failed} failed")
    return options.json, rows
