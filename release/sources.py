"""Makes the source archive of a commit, twice: the same bytes both times.

    python sources.py REVISION FOLDER

What is in the archive comes from the commit alone: its files, in order of their names,
with the commit's time (or `SOURCE_DATE_EPOCH`, Unix seconds) and nobody's name.
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def commit_time(revision: str) -> int:
    """Unix seconds of `SOURCE_DATE_EPOCH`, or else of the commit."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    shown = subprocess.run(
        ["git", "show", "-s", "--format=%ct", revision], check=True, capture_output=True
    )
    return int(shown.stdout)


def build(revision: str, folder: Path) -> Path:
    """Setuptools' archive of a commit, made in a folder that did not exist before."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", revision], check=True, capture_output=True
    ).stdout
    # tarfile's filter, without which newer Pythons warn, is not in 3.11.2.
    subprocess.run(["tar", "-x", "-C", tree], check=True, input=archive)
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", folder, "."],
        cwd=tree,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (archive,) = folder.glob("*.tar.gz")
    return archive


def normalized(archive: Path, seconds: int) -> bytes:
    """The archive with one order, time, owner and mode for whatever made it."""
    content = io.BytesIO()
    with (
        tarfile.open(archive) as old,
        gzip.GzipFile("", "wb", fileobj=content, mtime=seconds) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            kept = tarfile.TarInfo(member.name)
            kept.mtime = seconds
            if member.isdir():
                kept.type, kept.mode = tarfile.DIRTYPE, 0o755
                new.addfile(kept)
            elif member.isfile():
                kept.size, kept.mode = member.size, 0o644
                new.addfile(kept, old.extractfile(member))
            else:
                raise ValueError(f"a source archive has files only: {member.name}")
    return content.getvalue()


def main(revision: str, output: Path) -> None:
    """Writes the archive, or ends with 1 where the second one differs."""
    seconds = commit_time(revision)
    built = []
    with tempfile.TemporaryDirectory() as folder:
        for place in ("one", "another/place"):
            archive = build(revision, Path(folder, place))
            built.append((archive.name, normalized(archive, seconds)))
    digests = [hashlib.sha256(content).hexdigest() for _, content in built]
    for digest, (name, _) in zip(digests, built, strict=True):
        print(f"{digest}  {name}")
    if built[0] != built[1]:
        sys.exit("the two source archives differ")
    output.mkdir(parents=True, exist_ok=True)
    (output / built[0][0]).write_bytes(built[0][1])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
