"""Writes every Kotlin block of Markdown files as a source: `snippets.py OUT FILE...`.

Each in a package of its own, unless it names one.
"""

import re
import sys
from pathlib import Path


def main(folder: Path, documents: list[Path]) -> None:
    """Writes `FILE_1.kt` and on for each document."""
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents:
        blocks = re.findall(
            r"^```kotlin\n(.*?)^```$", document.read_text(), re.M | re.S
        )
        if not blocks:
            raise SystemExit(f"{document} has no Kotlin: is it still the right file?")
        for number, block in enumerate(blocks, 1):
            name = f"{document.stem.lower()}_{number}"
            head = (
                "" if block.startswith("package ") else f"package snippets.{name}\n\n"
            )
            (folder / f"{name}.kt").write_text(head + block)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
