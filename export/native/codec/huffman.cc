#include "codec/huffman.h"

#include "codec/blocks.h"

namespace dqa {
namespace {

constexpr unsigned kMaxPayload = 20;  // plane bits in an entry of `windows`

void fill_windows(HuffmanCode* code) {
  const unsigned width = code->width, symbols = 1u << width;
  uint16_t symbol_at[kWindow] = {};
  for (unsigned symbol = 0; symbol < symbols; ++symbol) {
    for (unsigned at = code->words[symbol]; at < kWindow;
         at += 1u << code->lengths[symbol]) {
      symbol_at[at] = static_cast<uint16_t>(symbol);
    }
  }
  for (unsigned window = 0; window < kWindow; ++window) {
    unsigned taken = 0, stored = 0;
    uint32_t payload = 0;
    while (stored + width <= kMaxPayload) {
      const unsigned symbol = symbol_at[window >> taken];
      if (taken + code->lengths[symbol] > kMaxCodeLength) break;
      payload |= symbol << stored;
      taken += code->lengths[symbol];
      stored += width;
    }
    code->windows[window] = taken | stored << 6 | payload << 12;
  }
}

void fill_fours(HuffmanCode* code) {
  for (unsigned window = 0; window < kWindow; ++window) {
    unsigned taken = 0, plane = 0;
    for (unsigned i = 0; i < 4; ++i) {
      // One codeword at a time: the entry's first symbol.
      const unsigned symbol = code->windows[window >> taken] >> 12 & 3;
      plane |= symbol << (2 * i);
      taken += code->lengths[symbol];
    }
    code->fours[window] = static_cast<uint16_t>(taken | plane << 8);
  }
}

void fill_chunks(HuffmanCode* code) {
  const unsigned width = code->width, count = chunk_symbols(width);
  for (unsigned chunk = 0; chunk < 1u << (count * width); ++chunk) {
    uint64_t bits = 0;
    unsigned length = 0;
    for (unsigned i = 0; i < count; ++i) {
      const unsigned symbol = chunk >> (i * width) & ((1u << width) - 1);
      bits |= uint64_t{code->words[symbol]} << length;
      length += code->lengths[symbol];
    }
    code->chunks[chunk] = bits | uint64_t{length} << 56;
  }
}

}  // namespace

void build_huffman(const uint8_t* lengths, unsigned width, HuffmanCode* code) {
  const unsigned symbols = 1u << width;
  code->width = width;
  unsigned counts[kMaxCodeLength + 1] = {};
  for (unsigned symbol = 0; symbol < symbols; ++symbol) ++counts[lengths[symbol]];
  unsigned next[kMaxCodeLength + 2] = {};
  for (unsigned length = 1; length <= kMaxCodeLength; ++length) {
    next[length + 1] = (next[length] + counts[length]) << 1;
  }
  for (unsigned symbol = 0; symbol < symbols; ++symbol) {
    const unsigned length = lengths[symbol];
    unsigned word = next[length]++, reversed = 0;
    for (unsigned i = 0; i < length; ++i, word >>= 1) {
      reversed = reversed << 1 | (word & 1);
    }
    code->lengths[symbol] = static_cast<uint8_t>(length);
    code->words[symbol] = static_cast<uint16_t>(reversed);
  }
  fill_windows(code);
  if (width == 2) fill_fours(code);
  fill_chunks(code);
}

}  // namespace dqa
