"""Canonical Huffman codes: the reference that every decoder is checked against.

A code is fully described by the length of each symbol's codeword. Codewords are
numbered canonically (shorter first, then by symbol) and written bit-reversed, least
significant bit of the stream first, as in DEFLATE (RFC 1951, section 3.2.2): a decoder
looks its next `MAX_CODE_LENGTH` bits up in one table.

>>> import numpy as np
>>> from dqa_keras.codec import huffman
>>> lengths = huffman.code_lengths(np.array([10, 3, 2, 1]))
>>> lengths.tolist()
[1, 2, 3, 3]
>>> stream, bits = huffman.encode(np.array([0, 3, 1, 0]), lengths)
>>> huffman.decode(stream, 4, lengths).tolist(), bits
([0, 3, 1, 0], 7)
"""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

# One 4096-entry table decodes any codeword.
MAX_CODE_LENGTH = 12


def code_lengths(counts: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Optimal codeword lengths, at most `MAX_CODE_LENGTH` bits each.

    Package-merge (Larmore and Hirschberg, 1990). Every symbol is given at least one
    count, so a symbol never seen in calibration still has a codeword.

    Args:
        counts: Integer array (S,), 1 <= S <= 2^MAX_CODE_LENGTH. How often each symbol
            was seen.

    Returns:
        Uint8 array (S,): bits of each codeword; `[0]` for a single symbol, which needs
        no bits at all.

    Raises:
        ValueError: If `counts` is empty, too long, not 1-D, or has negative values.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not 1 <= counts.size <= 2**MAX_CODE_LENGTH:
        raise ValueError(
            f"counts must be 1-D with 1..{2**MAX_CODE_LENGTH} symbols. "
            f"Received: shape={counts.shape}"
        )
    if counts.min() < 0:
        raise ValueError(f"counts must not be negative. Received: {counts.min()}")
    lengths = np.zeros(counts.size, np.uint8)
    if counts.size == 1:
        return lengths
    weights = np.maximum(counts, 1).tolist()
    leaves = sorted((weight, (symbol,)) for symbol, weight in enumerate(weights))
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(MAX_CODE_LENGTH):
        merged = sorted(leaves + packages)
        packages = [
            (a[0] + b[0], a[1] + b[1])
            for a, b in zip(merged[::2], merged[1::2], strict=False)
        ]
    for _, symbols in packages[: counts.size - 1]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def estimated_lengths(counts: NDArray[Any]) -> NDArray[np.float64]:
    """What `code_lengths` would give, ten times as fast, to compare many codes.

    Huffman's own algorithm. Rare symbols are taken to be as frequent as one in 2^11, in
    place of a bound on the length, so a codeword may differ where symbols are rarer.

    Args:
        counts: Float array (S,). How often each symbol occurs.

    Returns:
        Float64 array (S,): bits of each codeword.
    """
    symbols = counts.size
    if symbols == 1:
        return np.zeros(1)
    weights = np.maximum(counts, max(counts.sum(), 1e-30) / 2 ** (MAX_CODE_LENGTH - 1))
    heap = [(weight, symbol) for symbol, weight in enumerate(weights.tolist())]
    heapq.heapify(heap)
    parents = [0] * (2 * symbols - 1)
    for node in range(symbols, 2 * symbols - 1):
        rare, first = heapq.heappop(heap)
        second = heap[0][1]
        heapq.heapreplace(heap, (rare + heap[0][0], node))
        parents[first] = parents[second] = node
    depths = [0] * (2 * symbols - 1)
    for node in range(2 * symbols - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return np.array(depths[:symbols], np.float64)


def check_lengths(lengths: NDArray[np.integer]) -> None:
    """Raises ValueError unless the lengths describe one complete prefix code."""
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or lengths.size == 0:
        raise ValueError(f"code lengths must be 1-D. Received: shape={lengths.shape}")
    if lengths.size == 1:
        if lengths[0] != 0:
            raise ValueError(
                f"a single symbol takes no bits. Received: length={lengths[0]}"
            )
        return
    if lengths.min() < 1 or lengths.max() > MAX_CODE_LENGTH:
        raise ValueError(
            f"code lengths must be in 1..{MAX_CODE_LENGTH}. "
            f"Received: {lengths.min()}..{lengths.max()}"
        )
    kraft = int(np.sum(1 << (MAX_CODE_LENGTH - lengths.astype(np.int64))))
    if kraft != 1 << MAX_CODE_LENGTH:
        state = "over-subscribed" if kraft > 1 << MAX_CODE_LENGTH else "incomplete"
        raise ValueError(
            f"code lengths must fill the code space exactly; they are {state}. "
            f"Received: {lengths.tolist()}"
        )


def codewords(lengths: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Canonical codewords, bit-reversed so that they are written low bit first.

    Args:
        lengths: Integer array (S,) as returned by `code_lengths`.

    Returns:
        Uint32 array (S,).

    Raises:
        ValueError: If the lengths are not a complete prefix code.
    """
    lengths = np.asarray(lengths)
    check_lengths(lengths)
    words = np.zeros(lengths.size, np.uint32)
    code = 0
    previous = 0
    for symbol in np.lexsort((np.arange(lengths.size), lengths)):
        length = int(lengths[symbol])
        code <<= length - previous
        words[symbol] = int(f"{code:0{length}b}"[::-1], 2) if length else 0
        code += 1
        previous = length
    return words


def decoding_table(
    lengths: NDArray[np.integer],
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Symbol and codeword length for every possible next `MAX_CODE_LENGTH` bits.

    Returns:
        Two arrays (2^MAX_CODE_LENGTH,): symbols (uint16) and lengths (uint8).
    """
    words = codewords(lengths)
    symbols = np.zeros(1 << MAX_CODE_LENGTH, np.uint16)
    used = np.zeros(1 << MAX_CODE_LENGTH, np.uint8)
    for symbol, (word, length) in enumerate(zip(words, lengths, strict=True)):
        symbols[int(word) :: 1 << int(length)] = symbol
        used[int(word) :: 1 << int(length)] = length
    return symbols, used


def encode(
    symbols: NDArray[np.integer], lengths: NDArray[np.integer]
) -> tuple[bytes, int]:
    """Writes symbols as one stream of bits.

    Args:
        symbols: Integer array (T,) of values in [0, S).
        lengths: Integer array (S,), the code.

    Returns:
        The bytes, zero-padded at the end, and the number of bits used.

    Raises:
        ValueError: If a symbol is outside the code.
    """
    symbols = np.asarray(symbols).ravel()
    words = codewords(lengths)
    if symbols.size and not 0 <= symbols.min() <= symbols.max() < words.size:
        raise ValueError(
            f"symbols must be in 0..{words.size - 1}. "
            f"Received: {symbols.min()}..{symbols.max()}"
        )
    length_of = np.asarray(lengths, np.int64)[symbols]
    total = int(length_of.sum())
    starts = np.cumsum(length_of) - length_of
    # Bit i of codeword t lands at stream position starts[t] + i.
    owner = np.repeat(np.arange(symbols.size), length_of)
    offset = np.arange(total) - starts[owner]
    bits = (words[symbols][owner] >> offset) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes(), total


def decode(
    stream: bytes, count: int, lengths: NDArray[np.integer]
) -> NDArray[np.uint16]:
    """Reads `count` symbols back.

    Args:
        stream: The bytes that `encode` gave.
        count: Integer. Number of symbols to read.
        lengths: Integer array (S,), the code.

    Returns:
        Uint16 array (count,).

    Raises:
        ValueError: If the stream ends before `count` symbols were read.
    """
    table, used = decoding_table(lengths)
    out = np.empty(count, np.uint16)
    available = 8 * len(stream)
    data = stream + bytes(3)  # the last codeword's window may reach past the end
    position = 0
    for index in range(count):
        byte = position >> 3
        window = int.from_bytes(data[byte : byte + 3], "little") >> (position & 7)
        window &= (1 << MAX_CODE_LENGTH) - 1
        out[index] = table[window]
        position += int(used[window])
        if position > available:
            raise ValueError(
                f"the stream ends inside codeword {index}: {available} bits for "
                f"{count} symbols"
            )
    return out


def mean_length(counts: NDArray[np.integer], lengths: NDArray[np.integer]) -> float:
    """Mean bits a symbol takes when symbols occur as in `counts` (0 if none does)."""
    total = int(np.sum(counts))
    if total == 0:
        return 0.0
    return float(np.dot(np.asarray(counts, np.float64), lengths) / total)
