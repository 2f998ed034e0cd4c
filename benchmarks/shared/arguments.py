"""What the benchmarks' flags take; anything else is refused before the work."""

import argparse
import os
from pathlib import Path

# More rounds, images or threads than any run would end with.
_MOST = 2**31 - 1


def count(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, 1)


def limit(text: str) -> int:
    """A whole number from 0, which stands for all."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(
            f"must be a whole number in {least}..{_MOST}. Received: {text!r}"
        )
    return int(text)


def duration(text: str) -> float:
    """Seconds above 0, an hour at most."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(
            f"must be seconds above 0, 3600 at most. Received: {text!r}"
        )
    return value


def output(text: str) -> Path:
    """A file to write, in a folder that is there or can be made."""
    path = Path(text)
    try:
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        fits = bool(text) and "\0" not in text and not path.is_dir() and folder.is_dir()
        fits = fits and os.access(path if path.exists() else folder, os.W_OK)
    except (OSError, ValueError):  # a name that no file can have
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(
            f"must be a file that can be written. Received: {text!r}"
        )
    return path
