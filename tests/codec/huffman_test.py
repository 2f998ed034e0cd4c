import itertools
from fractions import Fraction

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqa_keras.codec import huffman

counts_lists = st.lists(st.integers(0, 10_000), min_size=2, max_size=40)


def words_as_text(lengths):
    """Codewords in the order their bits are written, first bit first."""
    words = huffman.codewords(lengths)
    return [
        "".join(str((int(word) >> bit) & 1) for bit in range(length))
        for word, length in zip(words, lengths, strict=True)
    ]


@given(counts_lists)
def test_lengths_cost_as_little_as_the_heap_algorithm(counts):
    weights = np.maximum(counts, 1)
    cost, longest = oracle.huffman_cost(weights)
    lengths = huffman.code_lengths(np.array(counts)).astype(int)
    if longest <= huffman.MAX_CODE_LENGTH:
        assert int(weights @ lengths) == cost
    else:
        assert int(weights @ lengths) >= cost


def _best_limited_cost(weights, limit):
    """Smallest cost over all complete codes, by trying every multiset of lengths."""
    ordered = sorted(weights, reverse=True)
    costs = [
        sum(w * length for w, length in zip(ordered, lengths, strict=True))
        for lengths in itertools.combinations_with_replacement(
            range(1, limit + 1), len(weights)
        )
        if sum(Fraction(1, 2**length) for length in lengths) == 1
    ]
    return min(costs)


def test_the_length_limit_is_kept_at_the_least_cost(monkeypatch):
    weights = np.array([1, 1, 2, 3, 5, 8, 13, 21])  # the heap would use 7 bits
    monkeypatch.setattr(huffman, "MAX_CODE_LENGTH", 4)
    lengths = huffman.code_lengths(weights).astype(int)
    assert lengths.max() <= 4
    assert int(weights @ lengths) == _best_limited_cost(weights.tolist(), 4)


def test_no_codeword_is_longer_than_the_limit():
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert oracle.huffman_cost(fibonacci)[1] > huffman.MAX_CODE_LENGTH
    lengths = huffman.code_lengths(np.array(fibonacci))
    assert lengths.max() == huffman.MAX_CODE_LENGTH
    huffman.check_lengths(lengths)


@given(counts_lists)
def test_lengths_fill_the_code_space_exactly(counts):
    lengths = huffman.code_lengths(np.array(counts))
    assert sum(Fraction(1, 2 ** int(length)) for length in lengths) == 1
    huffman.check_lengths(lengths)


@given(counts_lists)
def test_no_codeword_is_the_start_of_another(counts):
    words = words_as_text(huffman.code_lengths(np.array(counts)))
    assert not any(
        a.startswith(b) or b.startswith(a) for a, b in itertools.combinations(words, 2)
    )


@given(counts_lists)
def test_codewords_are_canonical(counts):
    lengths = huffman.code_lengths(np.array(counts))
    words = words_as_text(lengths)
    ordered = sorted(range(len(words)), key=lambda symbol: (lengths[symbol], symbol))
    # Canonical: read as binary fractions, they ascend without a gap.
    position = Fraction(0)
    for symbol in ordered:
        length = int(lengths[symbol])
        assert Fraction(int(words[symbol], 2), 2**length) == position
        position += Fraction(1, 2**length)


def test_codewords_of_the_deflate_specification():
    # RFC 1951, section 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4) of the symbols A to H.
    words = words_as_text(np.array([3, 3, 3, 3, 3, 2, 4, 4], np.uint8))
    assert words == ["010", "011", "100", "101", "110", "00", "1110", "1111"]


@given(counts_lists, st.data())
def test_decode_gives_back_what_encode_wrote(counts, data):
    lengths = huffman.code_lengths(np.array(counts))
    symbols = np.array(
        data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=60)), int
    )
    stream, bits = huffman.encode(symbols, lengths)
    assert bits == int(lengths.astype(int)[symbols].sum())
    assert len(stream) == -(-bits // 8)
    np.testing.assert_array_equal(
        huffman.decode(stream, symbols.size, lengths), symbols
    )


def test_the_stream_is_written_low_bit_first_and_padded_with_zeros():
    lengths = np.array([1, 2, 2], np.uint8)  # codewords 0, 10, 11
    stream, bits = huffman.encode(np.array([1, 0, 2]), lengths)
    assert bits == 5
    assert stream == bytes([0b00011001])  # bits 1 0 0 1 1 from the low end


def test_a_symbol_never_seen_still_has_a_codeword():
    lengths = huffman.code_lengths(np.array([1000, 0, 0, 0]))
    assert lengths.min() >= 1
    stream, _ = huffman.encode(np.array([3, 0, 2]), lengths)
    assert huffman.decode(stream, 3, lengths).tolist() == [3, 0, 2]


def test_counts_of_zero_and_one_make_the_same_code():
    zeros = huffman.code_lengths(np.zeros(8, int))
    np.testing.assert_array_equal(zeros, huffman.code_lengths(np.ones(8, int)))
    assert zeros.tolist() == [3] * 8


def test_a_single_symbol_takes_no_bits():
    lengths = huffman.code_lengths(np.array([5]))
    assert lengths.tolist() == [0]
    stream, bits = huffman.encode(np.zeros(10, int), lengths)
    assert (stream, bits) == (b"", 0)
    assert huffman.decode(b"", 10, lengths).tolist() == [0] * 10


def test_the_largest_alphabet_has_a_code():
    lengths = huffman.code_lengths(np.zeros(2**huffman.MAX_CODE_LENGTH, int))
    assert set(lengths.tolist()) == {huffman.MAX_CODE_LENGTH}


def test_nothing_encodes_to_nothing():
    lengths = np.array([1, 1], np.uint8)
    assert huffman.encode(np.array([], int), lengths) == (b"", 0)
    assert huffman.decode(b"", 0, lengths).size == 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 1, 2], "over-subscribed.*Received: \\[1, 1, 2\\]"),
        ([1, 2], "incomplete.*Received: \\[1, 2\\]"),
        ([2, 2, 2], "incomplete"),
        ([0, 1], r"must be in 1\.\.12.*Received: 0\.\.1"),
        ([1, 13], r"must be in 1\.\.12.*Received: 1\.\.13"),
        ([1], "single symbol takes no bits.*length=1"),
        ([], r"must be 1-D.*shape=\(0,\)"),
        ([[1, 1]], r"must be 1-D.*shape=\(1, 2\)"),
    ],
)
def test_lengths_that_are_no_complete_code_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        huffman.check_lengths(np.array(lengths, int))
    with pytest.raises(ValueError, match=message):
        huffman.codewords(np.array(lengths, int))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], r"1-D with 1\.\.4096 symbols.*\(0,\)"),
        ([[1, 2]], r"1-D.*\(1, 2\)"),
        (np.ones(4097, int), r"\(4097,\)"),
        ([3, -1], "must not be negative.*-1"),
    ],
)
def test_counts_that_make_no_code_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        huffman.code_lengths(np.array(counts, int))


@pytest.mark.parametrize("symbol", [-1, 2])
def test_a_symbol_outside_the_code_is_refused(symbol):
    with pytest.raises(ValueError, match=r"symbols must be in 0\.\.1"):
        huffman.encode(np.array([0, symbol]), np.array([1, 1], np.uint8))


@given(counts_lists)
def test_a_truncated_stream_is_refused(counts):
    lengths = huffman.code_lengths(np.array(counts))
    symbols = np.arange(len(counts))
    stream, bits = huffman.encode(symbols, lengths)
    for size in range(len(stream)):
        assert 8 * size < bits
        with pytest.raises(ValueError, match="stream ends inside codeword"):
            huffman.decode(stream[:size], symbols.size, lengths)


def test_mean_length_weighs_lengths_by_counts():
    assert huffman.mean_length(np.array([3, 1, 0]), np.array([1, 2, 2])) == 1.25
    assert huffman.mean_length(np.zeros(3, int), np.array([1, 2, 2])) == 0


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40))
def test_estimated_lengths_cost_what_the_code_costs(counts):
    counts = np.array(counts)
    estimate = huffman.estimated_lengths(counts)
    # No symbol is rarer than one in 2^11 here by more than rounding.
    assert counts @ estimate <= counts @ huffman.code_lengths(counts) * 1.02
    assert np.sum(2.0**-estimate) == pytest.approx(1)
