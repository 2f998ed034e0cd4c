"""Writes Kotlin and C of Markdown files as sources: `snippets.py OUT FILE...`.

Kotlin for an app goes to `OUT/snippets`, each block in a package of its own unless it
names one. Blocks that begin with `// app/build.gradle.kts` become functions of a Gradle
project, all in `OUT/gradle/lines/lines.kt`. The C of a file is one source in `OUT/c`.
"""

import json
import re
import sys
from pathlib import Path

BUILD_SCRIPT = "// app/build.gradle.kts\n"


def main(folder: Path, documents: list[Path]) -> None:
    """Writes `snippets/FILE_1.kt` and on, `c/FILE.c`, and lines of build scripts."""
    sources, scripts, native = (
        folder / name for name in ("snippets", "gradle/lines", "c")
    )
    for each in (sources, scripts, native):
        each.mkdir(parents=True, exist_ok=True)
    lines = []
    for document in documents:
        blocks = code(document, "kotlin")
        if not blocks:
            raise SystemExit(f"{document} has no Kotlin: is it still the right file?")
        if c := code(document, "c"):
            (native / f"{document.stem}.c").write_text("".join(c))
        for number, block in enumerate(blocks, 1):
            if block.startswith(BUILD_SCRIPT):
                lines.append((f"{document}, block {number}", block))
                continue
            name = f"{document.stem.lower()}_{number}"
            head = (
                "" if block.startswith("package ") else f"package snippets.{name}\n\n"
            )
            (sources / f"{name}.kt").write_text(head + block)
    (scripts / "lines.kt").write_text(build_scripts(lines))


def code(document: Path, language: str) -> list[str]:
    """The blocks of a language."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, document.read_text(), re.M | re.S)


def build_scripts(lines: list[tuple[str, str]]) -> str:
    """A Kotlin source with a map of names to the blocks as functions of a project."""
    entries = "".join(
        f"    {json.dumps(name)} to {{\n{block}    }},\n" for name, block in lines
    )
    return (
        "import org.gradle.api.Project\n\n"
        f"val LINES: Map<String, Project.() -> Unit> = mapOf(\n{entries})\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
