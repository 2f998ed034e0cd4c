"""Plain-text tables.

>>> from dqa_keras.analysis import text
>>> print(text.table([("name", "bits"), ("relu", "4")]))
name  bits
----------
relu  4
"""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first as the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines[1:1] = ["-" * len(lines[0].rstrip())]
    return "\n".join(line.rstrip() for line in lines)
