from typing import Any

from numpy.typing import NDArray

def best_isa() -> str: ...
def read_tables(
    data: bytes,
) -> list[tuple[bytes, int, int, int, bytes, bytes, bytes, bytes, bytes]]: ...

class Codec:
    def __init__(
        self,
        bits: int,
        extra_bits: int,
        is_signed: bool,
        mask: NDArray[Any],
        scale: NDArray[Any],
        residual_lengths: NDArray[Any],
        base_lengths: NDArray[Any],
        isa: str,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    def pack(
        self,
        values: NDArray[Any],
        storage: int,
        rows: int,
        strip_rows: int,
        threads: int,
        out: NDArray[Any],
    ) -> int: ...
    def unpack(
        self, blob: NDArray[Any], rows: int, threads: int, values: NDArray[Any]
    ) -> None: ...
    def pack_strip(
        self, values: NDArray[Any], storage: int, out: NDArray[Any]
    ) -> int: ...
    def unpack_strip(
        self, strip: NDArray[Any], storage: int, values: NDArray[Any]
    ) -> None: ...
    def decode_blocks(
        self, section: NDArray[Any], base: bool, count: int, plane: NDArray[Any]
    ) -> None: ...
