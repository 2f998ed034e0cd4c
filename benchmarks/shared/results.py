"""Figures of a benchmark as a JSON file."""

import json
import subprocess
from pathlib import Path


def read(path: Path | None) -> dict:
    """What an earlier run measured; nothing if there is no such file.

    Raises:
        ValueError: If the file holds something else.
    """
    if path is None or not path.is_file():
        return {}
    try:
        result = json.loads(path.read_text())
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise ValueError(f"{path} must hold an earlier run's figures: name another")
    return result


def write(path: Path, result: dict | list) -> None:
    """Writes the file whole or not at all, with the folder it lies in."""
    from dqa_keras import files  # other environments have no dqa_keras, and read only

    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def commit() -> str:
    """The commit that this folder is at; empty where there is no repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
