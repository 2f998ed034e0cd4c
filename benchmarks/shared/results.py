"""Figures of a benchmark as a JSON file."""

import json
from pathlib import Path


def read(path: Path | None) -> dict:
    """What an earlier run measured; nothing if there is no such file."""
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def write(path: Path, result: dict | list) -> None:
    """Writes the file whole or not at all, with the folder it lies in."""
    from dqa_keras import files  # other environments have no dqa_keras, and read only

    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
