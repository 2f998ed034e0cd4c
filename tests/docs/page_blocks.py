"""The code blocks of Markdown pages."""

import re
import shlex
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]


def blocks(page):
    """Pairs (language, code) of a page's fenced blocks, Sphinx' directives left out."""
    text = next(path for path in PAGES if path.stem == page).read_text()
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
