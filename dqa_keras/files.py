"""Writes files whole or not at all."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary file that takes the place of `path` when the block succeeds.

    An error in the block removes the temporary file and leaves `path` as it was. A
    symbolic link stays and the file that it names is replaced; a file that is there
    keeps its permissions. What is no ordinary file, such as a FIFO or `/dev/stdout`,
    cannot be replaced: the content is written into it when the block succeeds.

    Args:
        path: Path of the file to write.

    Raises:
        ValueError: If the folder does not exist or cannot be written to.
        OSError: If what is no ordinary file does not take the content.

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
    try:
        is_folder = path.is_dir()
        old = _status(path)
    except OSError as error:  # a name that is too long
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    if is_folder:
        raise ValueError(f"cannot write {path}: it is a folder. Name a file in it.")
    # Sockets are refused here: nothing can open one as a file.
    if old is not None and stat.S_ISSOCK(old.st_mode):
        raise ValueError(f"cannot write {path}: it is a socket. Name a file.")
    taken = old is not None and takes_content(path)
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise ValueError(f"cannot write {path}: it is a link that leads to itself")
    folder = None if taken else folder_of(path)
    # mkstemp shortens `gone/..`, which names a file that cannot be opened.
    if folder is not None and not folder.is_dir():
        raise ValueError(f"cannot write {path}: No such file or directory: {folder}")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if taken:
            _write_into(path, temporary)
            temporary.unlink()
        else:
            temporary.chmod(stat.S_IMODE(old.st_mode) if old else _ordinary_mode())
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def folder_of(path: str | os.PathLike) -> Path:
    """The folder that a file is written into: a link's own, where it leads to.

    Args:
        path: Path of a file that may exist.

    Returns:
        Path. Nothing of it was shortened, so `gone/../file` needs a folder `gone`.
    """
    path = Path(path)
    return Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent


def takes_content(path: str | os.PathLike) -> bool:
    """Whether a path names a device, a pipe or this process' own output.

    Args:
        path: Path of something that may exist.

    Returns:
        `False` for an ordinary file, a folder and what does not exist.
    """
    status = _status(Path(path))
    if status is None or stat.S_ISDIR(status.st_mode):
        return False
    return not stat.S_ISREG(status.st_mode) or _output_like(status) is not None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _output_like(status: os.stat_result) -> int | None:
    """The descriptor of standard output or error that goes to the same file."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(os.fstat(descriptor), status):
                return descriptor
        except OSError:  # closed
            continue
    return None


def _ordinary_mode() -> int:
    """What a new file may be used for; those of mkstemp are private."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _write_into(path: Path, source: Path) -> None:
    descriptor = _output_like(path.stat())
    try:
        if descriptor is None:
            target = path.open("wb")
        else:  # a second opening would write over what was printed
            if sys.stdout is not None:
                sys.stdout.flush()
            target = os.fdopen(os.dup(descriptor), "wb")
        with source.open("rb") as content, target:
            shutil.copyfileobj(content, target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
