"""huff0, zstandard's Huffman coder, as a peer of the codec."""

import ctypes
import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
Job = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Huff0:
    """huff0 with the residuals encoded.

    Args:
        jobs: Dictionary from the name of a decoder to what decodes them with it.
        size: Integer. Bytes of the encoded residuals.
        out: Uint8 array that the jobs decode to.
    """

    jobs: dict[str, Job]
    size: int
    out: NDArray[np.uint8]


def huff0(folder: Path, symbols: NDArray[np.uint8]) -> Huff0 | None:
    """huff0 out of Debian's static libzstd (libzstd-dev); `None` where it is not.

    It is compiled into a library of this process, so that it can take turns
    with the codec.
    """
    library = folder / "huff0.so"
    command = ["g++", "-std=c++17", "-O3", "-shared", "-fPIC", "-o", str(library)]
    try:
        subprocess.run(
            [*command, str(HERE / "huff0.cc"), "-l:libzstd.a"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    peer = ctypes.CDLL(str(library))
    peer.huff0_open.restype = ctypes.c_void_p
    peer.huff0_size.restype = ctypes.c_size_t
    encoded = ctypes.c_void_p(
        peer.huff0_open(
            symbols.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(symbols.size)
        )
    )
    if not encoded:
        return None
    out = np.zeros(symbols.size, np.uint8)

    def decode(two: int) -> None:
        if peer.huff0_decode(encoded, two, out.ctypes.data_as(ctypes.c_void_p)):
            raise AssertionError("huff0 cannot read what it wrote")

    jobs: dict[str, Job] = {
        "huff0, one symbol a look-up": lambda: decode(0),
        "huff0, two symbols a look-up": lambda: decode(1),
    }
    return Huff0(jobs, int(peer.huff0_size(encoded)), out)
