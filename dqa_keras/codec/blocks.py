"""Symbols as planes and blocks: the byte strings that a packed activation is made of.

A plane stores w bits a symbol. A section of blocks stores the same symbols in canonical
Huffman code, 16,384 symbols at a time, each block in up to four streams that a decoder
reads side by side; a block that would not shrink stays a plane. `export/FORMAT.md` has
it byte for byte.

>>> import numpy as np
>>> from dqa_keras.codec import blocks, huffman
>>> symbols = np.array([0, 3, 1, 0] * 100, np.uint8)
>>> lengths = huffman.code_lengths(np.bincount(symbols))
>>> section = blocks.write_blocks(symbols, 2, lengths)
>>> len(blocks.write_plane(symbols, 2)), len(section)
(100, 97)
>>> streams, end = blocks.scan_blocks(section, 0, symbols.size, 2)
>>> back = blocks.decode_streams(section, streams, symbols.size, 2, lengths)
>>> np.array_equal(back, symbols)
True
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dqa_keras.codec import huffman

BLOCK_SYMBOLS = 16384
# Below this, four stream sizes cost more than decoding them side by side gains.
FOUR_STREAMS_FROM = 256


@dataclasses.dataclass(frozen=True)
class Stream:
    """Where some consecutive symbols are stored.

    Args:
        offset: Integer. First byte of the stream in the data.
        size: Integer. Its bytes.
        start: Integer. Index of its first symbol.
        count: Integer. Its symbols.
        coded: Boolean. False for a plane.
    """

    offset: int
    size: int
    start: int
    count: int
    coded: bool


def plane_size(count: int, width: int) -> int:
    """Bytes of a plane of `count` symbols of `width` bits."""
    return (count * width + 7) // 8


def write_plane(symbols: NDArray[np.uint8], width: int) -> bytes:
    """Stores `width` bits a symbol, least significant bit first.

    Args:
        symbols: Uint8 array (T,) of values below 2^width.
        width: Integer in 0..8.

    Returns:
        `plane_size(T, width)` bytes.
    """
    if width == 0 or symbols.size == 0:
        return b""
    bits = np.unpackbits(symbols[:, None], axis=1, count=width, bitorder="little")
    return np.packbits(bits, bitorder="little").tobytes()


def read_plane(data: bytes, count: int, width: int) -> NDArray[np.uint8]:
    """The inverse of `write_plane`: uint8 array (count,)."""
    if width == 0 or count == 0:
        return np.zeros(count, np.uint8)
    stored = np.frombuffer(data, np.uint8, plane_size(count, width))
    bits = np.unpackbits(stored, count=count * width, bitorder="little")
    return np.packbits(bits.reshape(count, width), axis=1, bitorder="little")[:, 0]


def blocks_bound(count: int, width: int) -> int:
    """Most bytes that a section of blocks can take: every block raw."""
    if count == 0 or width == 0:
        return 0
    return plane_size(count, width) + 2 * -(-count // BLOCK_SYMBOLS)


def stream_counts(count: int) -> list[int]:
    """Symbols in each stream of a coded block of `count` symbols."""
    if count < FOUR_STREAMS_FROM:
        return [count]
    # A multiple of 8, so that every stream decodes to whole bytes of a plane.
    part = 8 * -(-count // 32)
    return [part, part, part, count - 3 * part]


def write_blocks(
    symbols: NDArray[np.uint8], width: int, lengths: NDArray[np.uint8]
) -> bytes:
    """Stores symbols as blocks, each coded if that is smaller and raw if not.

    Args:
        symbols: Uint8 array (T,) of values below 2^width.
        width: Integer in 0..8.
        lengths: Uint8 array (2^width,). Codeword lengths.

    Returns:
        Bytes; none for no symbols or a width of 0.

    Raises:
        ValueError: If the lengths are not a complete prefix code.
    """
    if width == 0:
        return b""
    section = bytearray()
    for start in range(0, symbols.size, BLOCK_SYMBOLS):
        block = symbols[start : start + BLOCK_SYMBOLS]
        ends = np.cumsum(stream_counts(block.size))
        streams = [
            huffman.encode(part, lengths)[0] for part in np.split(block, ends[:-1])
        ]
        sizes = [len(stream) for stream in streams]
        if _coded_is_smaller(sizes, block.size, width):
            section += np.array(sizes, "<u2").tobytes() + b"".join(streams)
        else:
            section += bytes(2) + write_plane(block, width)
    return bytes(section)


def blocks_size(
    symbols: NDArray[np.uint8], width: int, lengths: NDArray[np.uint8]
) -> int:
    """Bytes that `write_blocks` gives, without writing them.

    Args:
        symbols: Uint8 array (T,).
        width: Integer in 0..8.
        lengths: Uint8 array (2^width,). Codeword lengths.

    Returns:
        Integer.
    """
    return int(blocks_sizes(symbols[None], width, lengths)[0])


def blocks_sizes(
    symbols: NDArray[np.uint8], width: int, lengths: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Bytes that `write_blocks` gives for each of several sections of equal length.

    Args:
        symbols: Uint8 array (N, T).
        width: Integer in 0..8.
        lengths: Uint8 array (2^width,). Codeword lengths.

    Returns:
        Int64 array (N,).
    """
    sections, count = symbols.shape
    total = np.zeros(sections, np.int64)
    if width == 0:
        return total
    for start in range(0, count, BLOCK_SYMBOLS):
        block = lengths[symbols[:, start : start + BLOCK_SYMBOLS]]
        parts = stream_counts(block.shape[1])
        starts = np.cumsum([0, *parts[:-1]])
        bits = np.add.reduceat(block, starts, axis=1, dtype=np.int64)
        coded = 2 * len(parts) + (-(-bits // 8)).sum(axis=1)
        total += np.minimum(coded, 2 + plane_size(block.shape[1], width))
    return total


def _coded_is_smaller(sizes: list[int], count: int, width: int) -> bool:
    return 2 * len(sizes) + sum(sizes) < 2 + plane_size(count, width)


def scan_blocks(
    data: bytes, offset: int, count: int, width: int, start: int = 0
) -> tuple[list[Stream], int]:
    """Finds the streams of a section without decoding them.

    Args:
        data: Bytes. What holds the section.
        offset: Integer. Its first byte.
        count: Integer. Its symbols.
        width: Integer in 0..8.
        start: Integer. Index to give to its first symbol. Defaults to `0`.

    Returns:
        The streams, and the offset of the first byte after the section.

    Raises:
        ValueError: If the section is truncated or a block breaks a rule.
    """
    streams: list[Stream] = []
    if width == 0:
        return streams, offset
    for done in range(0, count, BLOCK_SYMBOLS):
        symbols = min(BLOCK_SYMBOLS, count - done)
        raw_size = plane_size(symbols, width)
        first = _stream_size(data, offset)
        if first == 0:
            sizes, counts, coded = [raw_size], [symbols], False
            offset += 2
        else:
            counts, coded = stream_counts(symbols), True
            sizes = [
                _stream_size(data, offset + 2 * index) for index in range(len(counts))
            ]
            if 0 in sizes or not _coded_is_smaller(sizes, symbols, width):
                raise ValueError(
                    "a coded block must have streams of at least 1 byte and be smaller "
                    f"than its raw form ({raw_size} bytes). Received: sizes={sizes}"
                )
            offset += 2 * len(counts)
        for size, part in zip(sizes, counts, strict=True):
            streams.append(Stream(offset, size, start + done, part, coded))
            done += part
            offset += size
        if offset > len(data):
            raise ValueError(
                f"a block must end inside its strip ({len(data)} bytes). "
                f"Received: a block that ends at byte {offset}"
            )
    return streams, offset


def _stream_size(data: bytes, offset: int) -> int:
    if offset + 2 > len(data):
        raise ValueError(
            f"a block must start with the sizes of its streams. Received: the data "
            f"ends at byte {len(data)}, a size is expected at {offset}"
        )
    return int.from_bytes(data[offset : offset + 2], "little")


def decode_streams(
    data: bytes,
    streams: list[Stream],
    count: int,
    width: int,
    lengths: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Reads the symbols of all streams, side by side.

    Step i reads symbol i of every stream that has one, so that NumPy works on as many
    symbols at a time as there are streams.

    Args:
        data: Bytes that the streams' offsets count in.
        streams: List of `Stream`; together they hold symbols 0..count - 1.
        count: Integer.
        width: Integer in 0..8.
        lengths: Uint8 array (2^width,). Codeword lengths.

    Returns:
        Uint8 array (count,).

    Raises:
        ValueError: If the lengths are not a complete prefix code, or a stream's
            symbols do not end in its last byte.
    """
    symbols = np.zeros(count, np.uint8)
    for stream in streams:
        if not stream.coded:
            plane = data[stream.offset : stream.offset + stream.size]
            symbols[stream.start : stream.start + stream.count] = read_plane(
                plane, stream.count, width
            )
    coded = sorted(
        (stream for stream in streams if stream.coded), key=lambda s: -s.count
    )
    if not coded:
        return symbols
    table, used = huffman.decoding_table(lengths)
    starts = np.array([stream.start for stream in coded])
    counts = np.array([stream.count for stream in coded])
    position = np.array([8 * stream.offset for stream in coded])
    # The next 24 bits from every byte; a codeword may begin 7 bits in and takes 12.
    padded = np.frombuffer(data + bytes(3), np.uint8).astype(np.uint32)
    next_bits = padded[:-2] | padded[1:-1] << 8 | padded[2:] << 16
    mask = (1 << huffman.MAX_CODE_LENGTH) - 1
    for step in range(counts[0]):
        live = int(np.searchsorted(-counts, -step))  # counts fall, so a prefix lives
        here = position[:live]
        # A damaged stream may run out of the data; it is refused below.
        byte = np.minimum(here >> 3, len(data))
        window = next_bits[byte] >> (here & 7).astype(np.uint32) & mask
        symbols[starts[:live] + step] = table[window]
        position[:live] += used[window]
    ends = np.array([stream.offset + stream.size for stream in coded])
    if not np.array_equal(-(-position // 8), ends):
        wrong = int(np.flatnonzero(-(-position // 8) != ends)[0])
        raise ValueError(
            "a stream's symbols must end in its last byte. Received: "
            f"{coded[wrong].count} symbols end at bit {position[wrong]}, the stream at "
            f"byte {ends[wrong]}"
        )
    return symbols
