"""What commands write: files, and what they say of them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from dqa_keras import files
from dqa_keras.analysis.text import printable
from dqa_keras.export import ExportReport


def check_writable(path: Path, *sources: str | None) -> None:
    """Raises ValueError at once, not after an hour, if a file cannot be written.

    Args:
        path: Path of the file to write.
        *sources: What the command reads. Those that are files must not be written over.
    """
    if files.takes_content(path):
        if not os.access(path, os.W_OK):
            raise ValueError(f"cannot write {path}: permission denied")
        return
    read = [source for source in sources if source and os.path.exists(source)]
    if path.exists() and any(path.samefile(source) for source in read):
        raise ValueError(
            f"cannot write {path}: the command reads it. Name another file."
        )
    folder = files.folder_of(path)
    if not folder.is_dir():
        raise ValueError(f"cannot write {path}: no such folder {folder}")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"cannot write {path}: permission denied or a folder")


def save_keras(model: keras.Model, path: Path) -> None:
    """Writes a `.keras` file whole or not at all."""
    with files.replacing(path) as temporary:
        # Keras goes by the suffix; the temporary file has none.
        named = temporary.with_name(temporary.name + ".keras")
        try:
            model.save(named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


@contextmanager
def scratch_file(suffix: str) -> Iterator[Path]:
    """A file name that is gone with the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / f"scratch{suffix}"


def _packed_lines(report: ExportReport) -> str:
    if report.packed is None:
        return ""
    lines = [
        f"packed region: {region.nodes} operations, {region.quantizers} quantizers, "
        f"{region.arena / 1024:.0f} KiB of memory, "
        f"{region.constants / 1024:.0f} KiB of weights"
        for region in report.packed.regions
    ]
    lines += [
        f"outside: {printable(name)}: {printable(why)}"
        for name, why in report.packed.outside.items()
    ]
    lines.append(f"packed: {printable(report.packed.summary())}")
    return "".join(line + "\n" for line in lines)


def describe_export(report: ExportReport) -> str:
    """What was written and checked, for the screen."""
    agreement = ""
    if report.agreement is not None:
        agreement = f"; the same class in {100 * report.agreement:.1f} %"
    return _packed_lines(report) + (
        f"wrote {report.path}: {report.size / 1024:.0f} KiB, {report.quantizers} "
        "quantizers agree with Keras to the bit on the same input\n"
        f"largest difference at the output: {report.max_difference:.3g} "
        f"(outputs reach {report.output_range:.3g}){agreement}"
    )
