"""How Sphinx builds the documentation: `make docs`, warnings are errors."""

import re
from typing import Any

import dqa_keras

project = "dqa_keras"
author = "The dqa_keras authors"
copyright = "the dqa_keras authors, Apache-2.0"
release = version = dqa_keras.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.graphviz",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "dqa_keras"
html_show_sphinx = False
html_copy_source = False
graphviz_output_format = "svg"
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
# The notebooks come executed from `make notebooks`.
nb_execution_mode = "off"
# TensorFlow's start-up messages are not part of the story.
nb_output_stderr = "remove"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Input shape", "Output shape", ("Reference", "Example")]
# Docstrings put code between single backticks, as Keras' do.
default_role = "code"


def _to_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]):
    """Turns the Markdown of Keras' docstring style into reStructuredText."""
    text = "\n".join(lines)
    text = re.sub(
        r"^( *)\$\$(.+?)\$\$",
        lambda m: (
            f"\n{m[1]}.. math::\n\n{m[1]}   "
            + " ".join(line.strip() for line in m[2].splitlines())
            + "\n"
        ),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    text = re.sub(r"(?<![\w$`])\$([^$\n]+?)\$", r":math:`\1`", text)
    text = re.sub(r"\[([^\]\[]+)\]\(\s*(https?:[^)\s]+)\)", r"`\1 <\2>`__", text)
    lines[:] = text.split("\n")


def setup(app: Any) -> None:
    """Connects what autodoc must do before napoleon."""
    app.connect("autodoc-process-docstring", _to_rest, priority=400)
