"""One self-contained HTML page out of a table and pictures."""

import html
import io
from collections.abc import Sequence

from matplotlib.axes import Axes

_STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line);
  text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; }
figure svg { max-width: 100%; height: auto; background: white; border-radius: 6px; }
figcaption { font-size: .9rem; opacity: .8; }
"""


def svg(axes: Axes) -> str:
    """The figure that `axes` are on, as an SVG element."""
    buffer = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes without a figure cannot be drawn"
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def page(
    title: str,
    paragraphs: Sequence[str],
    rows: Sequence[Sequence[str]],
    figures: Sequence[tuple[str, Axes]],
) -> str:
    """The page as HTML; it needs no network and no other file.

    Args:
        title: Heading of the page.
        paragraphs: Text above the table.
        rows: Rows of the table, the first as its header.
        figures: Captions and matplotlib axes.

    Returns:
        The HTML text.
    """
    escape = html.escape
    head, *body = rows
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in body
    )
    pictures = "".join(
        f"<figure>{svg(axes)}<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, axes in figures
    )
    text = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{text}"
        f'<div class="wide"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>{pictures}</body></html>\n"
    )
