"""Plain text for the screen: tables, and names out of foreign files.

>>> from dqa_keras.analysis import text
>>> print(text.table([("name", "bits"), ("relu", "4")]))
name  bits
----------
relu  4
"""

from collections.abc import Sequence


def printable(text: str) -> str:
    r"""A text without control characters, which could steer a terminal.

    Args:
        text: String, such as a layer's name out of a file.

    Returns:
        The text; whatever is not printable is written as an escape.

    Example:
    >>> from dqa_keras.analysis import text
    >>> print(text.printable("relu\x1b[2J"))
    relu\x1b[2J
    """
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in text
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first as the header; control characters are escaped."""
    rows = [[*map(printable, row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines[1:1] = ["-" * len(lines[0].rstrip())]
    return "\n".join(line.rstrip() for line in lines)
