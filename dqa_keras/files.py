"""Writes files whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary file that takes the place of `path` when the block succeeds.

    An error in the block removes the temporary file and leaves `path` as it was.

    Args:
        path: Path of the file to write.

    Raises:
        ValueError: If the folder does not exist or cannot be written to.

    Example:
    >>> import tempfile, pathlib
    >>> from dqa_keras import files
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with files.replacing(path) as temporary:
    ...     _ = temporary.write_text("done")
    >>> path.read_text()
    'done'
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder. Name a file in it.")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's files are private; the result is an ordinary file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
