// Writing and reading sections of blocks. Everything is inlined into one function for
// each instruction set, compiled for it.
#ifndef DQA_CODEC_BLOCKS_H_
#define DQA_CODEC_BLOCKS_H_

#include <algorithm>
#include <cstring>

#include "codec/bits.h"
#include "codec/errors.h"
#include "codec/huffman.h"

#define DQA_INLINE inline __attribute__((always_inline))

namespace dqa {

// Symbols looked up at once when encoding, and look-ups on one 8-byte load of the
// plane; together they take whole bytes, at most 7.
constexpr unsigned chunk_symbols(unsigned width) { return width < 7 ? 12 / width : 1; }
constexpr unsigned chunks_per_load(unsigned width) { return width == 7 ? 8 : 4; }
// Look-ups before the bits are written out: 7 left over and 56 more fill a word.
constexpr unsigned chunks_per_store(unsigned width) {
  return width == 4 ? 1 : width < 7 ? 2 : 4;
}

// Bits written low first; at most 7 wait between two calls of `flush`.
struct BitWriter {
  uint8_t* out = nullptr;
  uint64_t bits = 0;
  unsigned fill = 0;

  DQA_INLINE void put(uint64_t value, unsigned length) {
    bits |= value << fill;
    fill += length;
  }
  DQA_INLINE void
  flush() {  // writes 8 bytes, of which the last may be overwritten later
    store8(out, bits);
    out += fill >> 3;
    bits >>= fill & 56;
    fill &= 7;
  }
};

// One 8-byte load of the plane: chunk_symbols * chunks_per_load symbols.
template <unsigned W>
DQA_INLINE void encode_load(const HuffmanCode& code, const uint8_t* plane,
                            BitWriter* writer) {
  constexpr unsigned kChunkBits = chunk_symbols(W) * W, kStore = chunks_per_store(W);
  static_assert(chunks_per_load(W) % kStore == 0, "a load ends with a store");
  uint64_t word = load8(plane);
  for (unsigned i = 0; i < chunks_per_load(W); ++i) {
    const uint64_t chunk = code.chunks[word & ((1u << kChunkBits) - 1)];
    word >>= kChunkBits;
    writer->put(chunk & ((uint64_t{1} << 56) - 1), static_cast<unsigned>(chunk >> 56));
    if ((i + 1) % kStore == 0) writer->flush();
  }
}

// Symbols first..count of a plane, then what is left in the writer.
template <unsigned W>
DQA_INLINE void encode_rest(const HuffmanCode& code, const uint8_t* plane, size_t first,
                            size_t count, BitWriter* writer) {
  for (size_t i = first; i < count; ++i) {
    const size_t bit = i * W;
    const unsigned pair = plane[bit >> 3] | unsigned{plane[(bit >> 3) + 1]} << 8;
    const unsigned symbol = pair >> (bit & 7) & ((1u << W) - 1);
    writer->put(code.words[symbol], code.lengths[symbol]);
    writer->flush();
  }
  if (writer->fill > 0) *writer->out++ = static_cast<uint8_t>(writer->bits);
}

// Two streams side by side, so that one's look-ups hide the other's chain of shifts.
// The first has at least as many symbols as the second.
template <unsigned W>
DQA_INLINE void encode_two(const HuffmanCode& code, const uint8_t* const* planes,
                           const size_t* counts, BitWriter* writers) {
  constexpr size_t kSymbols = chunk_symbols(W) * chunks_per_load(W);
  BitWriter one = writers[0], two = writers[1];
  const size_t loads = counts[1] / kSymbols;
  for (size_t i = 0; i < loads; ++i) {
    encode_load<W>(code, planes[0] + i * (kSymbols * W / 8), &one);
    encode_load<W>(code, planes[1] + i * (kSymbols * W / 8), &two);
  }
  encode_rest<W>(code, planes[0], loads * kSymbols, counts[0], &one);
  encode_rest<W>(code, planes[1], loads * kSymbols, counts[1], &two);
  writers[0] = one;
  writers[1] = two;
}

struct Streams {
  unsigned count;
  size_t symbols[4];
};

inline Streams streams_of(size_t symbols) {
  if (symbols < kFourStreamsFrom) return {1, {symbols, 0, 0, 0}};
  const size_t part = 8 * ((symbols + 31) / 32);
  return {4, {part, part, part, symbols - 3 * part}};
}

inline void store_size(uint8_t* to, size_t size) { store_bytes(to, size, 2); }

template <unsigned W>
DQA_INLINE size_t encode_block(const HuffmanCode& code, const uint8_t* plane,
                               size_t count, uint8_t* out, uint8_t* scratch) {
  const size_t raw = plane_bytes(count, W);
  if (W > 1) {  // two symbols have one bit each, so they never shrink
    const Streams streams = streams_of(count);
    const uint8_t* planes[4];
    BitWriter writers[4];
    for (unsigned s = 0; s < 4; ++s) {
      planes[s] = plane + s * (streams.symbols[0] * W / 8);
      writers[s].out = scratch + s * kStreamScratch;
    }
    // A block of one stream is a pair whose second has no symbols.
    for (unsigned s = 0; s < streams.count; s += 2) {
      encode_two<W>(code, planes + s, streams.symbols + s, writers + s);
    }
    size_t sizes[4], coded = 0;
    for (unsigned s = 0; s < streams.count; ++s) {
      sizes[s] = static_cast<size_t>(writers[s].out - (scratch + s * kStreamScratch));
      coded += sizes[s];
    }
    if (2 * streams.count + coded < 2 + raw) {
      uint8_t* to = out + 2 * streams.count;
      for (unsigned s = 0; s < streams.count; ++s) {
        store_size(out + 2 * s, sizes[s]);
        std::memcpy(to, scratch + s * kStreamScratch, sizes[s]);
        to += sizes[s];
      }
      return 2 * streams.count + coded;
    }
  }
  store_size(out, 0);
  std::memcpy(out + 2, plane, raw);
  return 2 + raw;
}

template <unsigned W>
DQA_INLINE size_t encode_section(const HuffmanCode& code, const uint8_t* plane,
                                 size_t count, uint8_t* out, uint8_t* scratch) {
  uint8_t* const begin = out;
  while (count > 0) {
    const size_t symbols = std::min(count, kBlockSymbols);
    out += encode_block<W>(code, plane, symbols, out, scratch);
    plane += symbols * W / 8;
    count -= symbols;
  }
  return static_cast<size_t>(out - begin);
}

// One stream on its way into its part of the plane. Both sides are kept as numbers of
// bits: two registers a stream, so that four of them fit.
struct Reader {
  const uint8_t* in;
  size_t in_bytes;
  uint8_t* out;
  size_t out_bytes;
  size_t used = 0;    // bits of `in`
  size_t stored = 0;  // bits of `out`; those above it in its byte are 0
};

// What a round of four look-ups may do, in bytes, by the table it uses.
constexpr size_t kRoundLoad = 8;   // loaded from the next bit on
constexpr size_t kRoundInput = 7;  // how far it may move that bit
template <typename Entry>
inline constexpr size_t kRoundOutput = 10;  // stored for good
template <>
inline constexpr size_t kRoundOutput<uint16_t> = 4;
template <typename Entry>
inline constexpr size_t kRoundReach = 16;  // how far its stores reach
template <>
inline constexpr size_t kRoundReach<uint16_t> =
    5;  // not the last byte: it may be partly used

// Rounds that cannot leave the stream's part of the plane nor the strip.
template <typename Entry>
DQA_INLINE size_t safe_rounds(const Reader& reader, const uint8_t* in_end) {
  const size_t out_left = reader.out_bytes - (reader.stored >> 3);
  const size_t in_left = static_cast<size_t>(in_end - reader.in) - (reader.used >> 3);
  if (out_left < kRoundReach<Entry> || in_left < kRoundLoad) return 0;
  return std::min((out_left - kRoundReach<Entry>) / kRoundOutput<Entry>,
                  (in_left - kRoundLoad) / kRoundInput) +
         1;
}

// The next entry; `used` gathers how many bits entries took, in its low 6 bits.
template <typename Entry>
DQA_INLINE uint32_t look_up(const Entry* table, uint64_t* bits, uint32_t* used) {
  const uint32_t entry = table[*bits & (kWindow - 1)];
  *bits >>= entry & 63;
  *used += entry;
  return entry;
}

// Appends the symbols of two entries: at most 40 bits behind at most 7.
DQA_INLINE void append(uint32_t first, uint32_t second, uint8_t* out, size_t* stored) {
  const uint64_t symbols = uint64_t{second >> 12} << (first >> 6 & 63) | first >> 12;
  uint8_t* const to = out + (*stored >> 3);
  store8(to, symbols << (*stored & 7) | *to);
  *stored += ((first >> 6) + (second >> 6)) & 63;
}

// Four look-ups: at most 48 of the 57 bits that a load is sure to give.
DQA_INLINE void decode_round(const uint32_t* windows, const uint8_t* in, size_t* used,
                             uint8_t* out, size_t* stored) {
  uint64_t bits = load8(in + (*used >> 3)) >> (*used & 7);
  uint32_t taken = 0;
  const uint32_t a = look_up(windows, &bits, &taken);
  const uint32_t b = look_up(windows, &bits, &taken);
  append(a, b, out, stored);
  const uint32_t c = look_up(windows, &bits, &taken);
  const uint32_t d = look_up(windows, &bits, &taken);
  append(c, d, out, stored);
  *used += taken & 63;
}

// The same where every look-up gives one byte of the plane.
DQA_INLINE void decode_round(const uint16_t* fours, const uint8_t* in, size_t* used,
                             uint8_t* out, size_t* stored) {
  uint64_t bits = load8(in + (*used >> 3)) >> (*used & 7);
  uint32_t taken = 0;
  uint8_t* const to = out + (*stored >> 3);
  for (unsigned i = 0; i < 4; ++i) {
    to[i] = static_cast<uint8_t>(look_up(fours, &bits, &taken) >> 8);
  }
  *used += taken & 63;
  *stored += 32;
}

// Four independent chains of look-ups hide each other's latency.
template <typename Entry>
DQA_INLINE void decode_rounds(const Entry* table, Reader* readers,
                              const uint8_t* in_end) {
  size_t used[4], stored[4];
  for (unsigned s = 0; s < 4; ++s) used[s] = stored[s] = 0;
  const uint8_t *const in0 = readers[0].in, *const in1 = readers[1].in,
                       *const in2 = readers[2].in, *const in3 = readers[3].in;
  uint8_t *const out0 = readers[0].out, *const out1 = readers[1].out,
                 *const out2 = readers[2].out, *const out3 = readers[3].out;
  for (;;) {
    size_t rounds = ~size_t{0};
    for (unsigned s = 0; s < 4; ++s) {
      readers[s].used = used[s];
      readers[s].stored = stored[s];
      rounds = std::min(rounds, safe_rounds<Entry>(readers[s], in_end));
    }
    if (rounds == 0) return;
    for (size_t round = 0; round < rounds; ++round) {
      decode_round(table, in0, &used[0], out0, &stored[0]);
      decode_round(table, in1, &used[1], out1, &stored[1]);
      decode_round(table, in2, &used[2], out2, &stored[2]);
      decode_round(table, in3, &used[3], out3, &stored[3]);
    }
  }
}

// Reads the rest of a stream with every access checked; true if it ends in its last
// byte.
DQA_INLINE bool finish_stream(const HuffmanCode& code, const Reader& reader,
                              size_t symbols) {
  const size_t total = symbols * code.width;
  size_t used = reader.used, stored = reader.stored;
  unsigned fill = stored & 7;
  uint8_t* out = reader.out + (stored >> 3);
  uint64_t waiting = fill > 0 ? *out : 0;
  while (stored < total) {
    const size_t byte = used >> 3;
    if (byte >= reader.in_bytes) return false;
    const uint64_t next =
        load_bytes(reader.in + byte, std::min<size_t>(reader.in_bytes - byte, 3));
    const uint32_t entry = code.windows[next >> (used & 7) & (kWindow - 1)];
    unsigned taken = entry & 63, bits = entry >> 6 & 63;
    uint64_t payload = entry >> 12;
    if (stored + bits > total) {  // the window reaches beyond the last symbol
      payload &= (1u << code.width) - 1;
      taken = code.lengths[payload];
      bits = code.width;
    }
    waiting |= payload << fill;
    fill += bits;
    stored += bits;
    used += taken;
    for (; fill >= 8; fill -= 8, waiting >>= 8) *out++ = static_cast<uint8_t>(waiting);
  }
  if (fill > 0) *out = static_cast<uint8_t>(waiting);
  return (used + 7) / 8 == reader.in_bytes;
}

DQA_INLINE bool decode_streams(const HuffmanCode& code, const Streams& streams,
                               const size_t* sizes, const uint8_t* in,
                               const uint8_t* in_end, uint8_t* plane) {
  Reader readers[4];
  for (unsigned s = 0; s < streams.count; ++s) {
    const size_t bytes = plane_bytes(streams.symbols[s], code.width);
    readers[s] = {in, sizes[s], plane, bytes};
    *plane = 0;
    in += sizes[s];
    plane += bytes;
  }
  if (streams.count == 4) {
    if (code.width == 2) {
      decode_rounds(code.fours, readers, in_end);
    } else {
      decode_rounds(code.windows, readers, in_end);
    }
  }
  for (unsigned s = 0; s < streams.count; ++s) {
    if (!finish_stream(code, readers[s], streams.symbols[s])) return false;
  }
  return true;
}

inline size_t bytes_between(const uint8_t* begin, const uint8_t* end) {
  return static_cast<size_t>(end - begin);
}

DQA_INLINE DqaStatus decode_section(const HuffmanCode& code, const uint8_t* section,
                                    size_t size, size_t count, uint8_t* plane,
                                    size_t* used, DqaError* error) {
  const uint8_t* in = section;
  const uint8_t* const in_end = section + size;
  while (count > 0) {
    const size_t symbols = std::min(count, kBlockSymbols);
    const size_t raw = plane_bytes(symbols, code.width);
    if (bytes_between(in, in_end) < 2) {
      return fail(error, DQA_TRUNCATED,
                  "a block must start with the sizes of its streams; its strip is "
                  "truncated. Received: %zu bytes",
                  bytes_between(in, in_end));
    }
    if (load_bytes(in, 2) == 0) {
      in += 2;
      if (bytes_between(in, in_end) < raw) {
        return fail(error, DQA_TRUNCATED,
                    "a raw block must have %zu bytes; its strip is truncated. "
                    "Received: %zu bytes",
                    raw, bytes_between(in, in_end));
      }
      std::memcpy(plane, in, raw);
      in += raw;
    } else {
      const Streams streams = streams_of(symbols);
      if (bytes_between(in, in_end) < 2 * streams.count) {
        return fail(error, DQA_TRUNCATED,
                    "a block must start with the sizes of its streams; its strip is "
                    "truncated. Received: %zu bytes",
                    bytes_between(in, in_end));
      }
      size_t sizes[4] = {0, 0, 0, 0}, coded = 2 * streams.count;
      bool empty = false;
      for (unsigned s = 0; s < streams.count; ++s) {
        sizes[s] = static_cast<size_t>(load_bytes(in + 2 * s, 2));
        coded += sizes[s];
        empty = empty || sizes[s] == 0;
      }
      if (empty || coded >= 2 + raw) {
        return fail(error, DQA_CORRUPT,
                    "a coded block must have streams of at least 1 byte and be smaller "
                    "than its raw form (%zu bytes). Received: sizes=[%zu, %zu, %zu, "
                    "%zu]",
                    raw, sizes[0], sizes[1], sizes[2], sizes[3]);
      }
      if (bytes_between(in, in_end) < coded) {
        return fail(error, DQA_TRUNCATED,
                    "a block must end inside its strip. Received: %zu bytes for a "
                    "block of %zu",
                    bytes_between(in, in_end), coded);
      }
      if (!decode_streams(code, streams, sizes, in + 2 * streams.count, in_end,
                          plane)) {
        return fail(error, DQA_CORRUPT,
                    "a stream's symbols must end in its last byte. Received: a block "
                    "of %zu symbols whose do not",
                    symbols);
      }
      in += coded;
    }
    plane += symbols * code.width / 8;
    count -= symbols;
  }
  *used = static_cast<size_t>(in - section);
  return DQA_OK;
}

// Symbol widths are compiled into encoding: they decide shifts in its inner loop.
DQA_INLINE size_t encode_section(const HuffmanCode& code, const uint8_t* plane,
                                 size_t count, uint8_t* out, uint8_t* scratch) {
  switch (code.width) {
    case 1: return encode_section<1>(code, plane, count, out, scratch);
    case 2: return encode_section<2>(code, plane, count, out, scratch);
    case 3: return encode_section<3>(code, plane, count, out, scratch);
    case 4: return encode_section<4>(code, plane, count, out, scratch);
    case 5: return encode_section<5>(code, plane, count, out, scratch);
    case 6: return encode_section<6>(code, plane, count, out, scratch);
    case 7: return encode_section<7>(code, plane, count, out, scratch);
    default: return encode_section<8>(code, plane, count, out, scratch);
  }
}

}  // namespace dqa

#endif  // DQA_CODEC_BLOCKS_H_
