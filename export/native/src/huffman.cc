#include "huffman.h"

#include <algorithm>
#include <cstring>

#include "bits.h"
#include "errors.h"

namespace dqa {
namespace {

// Symbols looked up at once when encoding, and look-ups on one 8-byte load of the plane;
// together they take whole bytes, at most 7.
constexpr unsigned chunk_symbols(unsigned width) { return width < 7 ? 12 / width : 1; }
constexpr unsigned chunks_per_load(unsigned width) { return width == 7 ? 8 : 4; }
// Look-ups before the bits are written out: 7 left over and 56 more fill a word.
constexpr unsigned chunks_per_store(unsigned width) {
  return width == 4 ? 1 : width < 7 ? 2 : 4;
}

constexpr unsigned kMaxPayload = 20;  // plane bits in an entry of `windows`

void fill_windows(HuffmanCode* code) {
  const unsigned width = code->width, symbols = 1u << width;
  uint16_t symbol_at[kWindow];
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

// Bits written low first; at most 7 wait between two calls of `flush`.
struct BitWriter {
  uint8_t* out;
  uint64_t bits = 0;
  unsigned fill = 0;

  void put(uint64_t value, unsigned length) {
    bits |= value << fill;
    fill += length;
  }
  void flush() {  // writes 8 bytes, of which the last may be overwritten later
    store8(out, bits);
    out += fill >> 3;
    bits >>= fill & 56;
    fill &= 7;
  }
};

template <unsigned W>
uint8_t* encode_stream(const HuffmanCode& code, const uint8_t* plane, size_t count,
                       uint8_t* out) {
  constexpr unsigned kSymbols = chunk_symbols(W), kLoad = chunks_per_load(W);
  constexpr unsigned kChunkBits = kSymbols * W, kStore = chunks_per_store(W);
  static_assert(kLoad % kStore == 0, "a load ends with a store");
  BitWriter writer{out};
  size_t left = count;
  for (; left >= kSymbols * kLoad; left -= kSymbols * kLoad) {
    uint64_t word = load8(plane);
    for (unsigned i = 0; i < kLoad; ++i) {
      const uint64_t chunk = code.chunks[word & ((1u << kChunkBits) - 1)];
      word >>= kChunkBits;
      writer.put(chunk & ((uint64_t{1} << 56) - 1), static_cast<unsigned>(chunk >> 56));
      if ((i + 1) % kStore == 0) writer.flush();
    }
    plane += kChunkBits * kLoad / 8;
  }
  for (size_t i = 0; i < left; ++i) {
    const size_t bit = i * W;
    const unsigned pair = plane[bit >> 3] | unsigned{plane[(bit >> 3) + 1]} << 8;
    const unsigned symbol = pair >> (bit & 7) & ((1u << W) - 1);
    writer.put(code.words[symbol], code.lengths[symbol]);
    writer.flush();
  }
  if (writer.fill > 0) *writer.out++ = static_cast<uint8_t>(writer.bits);
  return writer.out;
}

struct Streams {
  unsigned count;
  size_t symbols[4];
};

Streams streams_of(size_t symbols) {
  if (symbols < kFourStreamsFrom) return {1, {symbols, 0, 0, 0}};
  const size_t part = 8 * ((symbols + 31) / 32);
  return {4, {part, part, part, symbols - 3 * part}};
}

void store_size(uint8_t* to, size_t size) { store_bytes(to, size, 2); }

template <unsigned W>
size_t encode_block(const HuffmanCode& code, const uint8_t* plane, size_t count,
                    uint8_t* out, uint8_t* scratch) {
  const size_t raw = plane_bytes(count, W);
  if (W > 1) {  // two symbols have one bit each, so they never shrink
    const Streams streams = streams_of(count);
    size_t sizes[4] = {0, 0, 0, 0};
    uint8_t* end = scratch;
    const uint8_t* from = plane;
    for (unsigned s = 0; s < streams.count; ++s) {
      uint8_t* begin = end;
      end = encode_stream<W>(code, from, streams.symbols[s], begin);
      sizes[s] = static_cast<size_t>(end - begin);
      from += streams.symbols[s] * W / 8;
    }
    const size_t coded = static_cast<size_t>(end - scratch);
    if (2 * streams.count + coded < 2 + raw) {
      for (unsigned s = 0; s < streams.count; ++s) store_size(out + 2 * s, sizes[s]);
      std::memcpy(out + 2 * streams.count, scratch, coded);
      return 2 * streams.count + coded;
    }
  }
  store_size(out, 0);
  std::memcpy(out + 2, plane, raw);
  return 2 + raw;
}

template <unsigned W>
size_t encode_section(const HuffmanCode& code, const uint8_t* plane, size_t count,
                      uint8_t* out, uint8_t* scratch) {
  uint8_t* const begin = out;
  while (count > 0) {
    const size_t symbols = std::min(count, kBlockSymbols);
    out += encode_block<W>(code, plane, symbols, out, scratch);
    plane += symbols * W / 8;
    count -= symbols;
  }
  return static_cast<size_t>(out - begin);
}

// One stream on its way into its part of the plane.
struct Reader {
  const uint8_t* in;     // next byte to load
  const uint8_t* begin;  // first byte of the stream
  size_t size;
  uint64_t bits = 0;  // loaded and not yet used, low bits first
  unsigned have = 0;  // how many of them are certain
  uint8_t* out;       // next byte of the plane
  uint8_t* out_end;
  uint64_t symbols = 0;  // decoded and not yet stored
  unsigned fill = 0;

  // Loads until at least 56 bits are there. Reads 8 bytes.
  void refill() {
    bits |= load8(in) << have;
    in += (63 - have) >> 3;
    have |= 56;
  }
  void step(const uint32_t* windows) {
    const uint32_t entry = windows[bits & (kWindow - 1)];
    bits >>= entry & 63;
    have -= entry & 63;
    symbols |= uint64_t{entry >> 12} << fill;
    fill += entry >> 6 & 63;
  }
  // Writes 8 bytes, of which the last may be overwritten later.
  void flush() {
    store8(out, symbols);
    out += fill >> 3;
    symbols >>= fill & 56;
    fill &= 7;
  }
};

constexpr size_t kRoundInput = 8;    // most bytes a round of four look-ups loads
constexpr size_t kRoundOutput = 11;  // most bytes it stores for good
constexpr size_t kRoundReach = 16;   // how far behind `out` its stores reach

// Rounds that cannot leave the stream's part of the plane nor the strip.
size_t safe_rounds(const Reader& reader, const uint8_t* in_end) {
  const size_t out_left = static_cast<size_t>(reader.out_end - reader.out);
  const size_t in_left = static_cast<size_t>(in_end - reader.in);
  if (out_left < kRoundReach || in_left < kRoundInput) return 0;
  return std::min((out_left - kRoundReach) / kRoundOutput + 1, in_left / kRoundInput);
}

inline void decode_round(Reader* reader, const uint32_t* windows) {
  reader->refill();
  reader->step(windows);
  reader->step(windows);
  reader->flush();
  reader->step(windows);
  reader->step(windows);
  reader->flush();
}

// Reads the rest of a stream with every access checked; true if it ends in its last byte.
template <unsigned W>
bool finish_stream(const HuffmanCode& code, Reader* reader, size_t symbols) {
  const size_t wanted = plane_bytes(symbols, W);
  const uint8_t* const first_out = reader->out_end - wanted;
  size_t stored =
      8 * static_cast<size_t>(reader->out - first_out) + reader->fill;  // bits
  size_t position =
      8 * static_cast<size_t>(reader->in - reader->begin) - reader->have;  // bits
  const size_t total = symbols * W;
  while (stored < total) {
    const size_t byte = position >> 3;
    if (byte >= reader->size) return false;
    const uint64_t next = load_bytes(reader->begin + byte, std::min<size_t>(reader->size - byte, 3));
    uint32_t entry = code.windows[next >> (position & 7) & (kWindow - 1)];
    unsigned taken = entry & 63, bits = entry >> 6 & 63;
    uint64_t payload = entry >> 12;
    if (stored + bits > total) {  // the window reaches beyond the last symbol
      payload &= (1u << W) - 1;
      taken = code.lengths[payload];
      bits = W;
    }
    reader->symbols |= payload << reader->fill;
    reader->fill += bits;
    stored += bits;
    position += taken;
    for (; reader->fill >= 8; reader->fill -= 8, reader->symbols >>= 8) {
      *reader->out++ = static_cast<uint8_t>(reader->symbols);
    }
  }
  if (reader->fill > 0) *reader->out++ = static_cast<uint8_t>(reader->symbols);
  return (position + 7) / 8 == reader->size;
}

template <unsigned W>
bool decode_streams(const HuffmanCode& code, const Streams& streams,
                    const size_t* sizes, const uint8_t* in, const uint8_t* in_end,
                    uint8_t* plane) {
  Reader readers[4];
  for (unsigned s = 0; s < streams.count; ++s) {
    Reader& reader = readers[s];
    reader.in = reader.begin = in;
    reader.size = sizes[s];
    reader.out = plane;
    reader.out_end = plane + plane_bytes(streams.symbols[s], W);
    in += sizes[s];
    plane = reader.out_end;
  }
  if (streams.count == 4) {
    // Four independent chains of look-ups hide each other's latency. Local copies stay
    // in registers.
    Reader a = readers[0], b = readers[1], c = readers[2], d = readers[3];
    const uint32_t* const windows = code.windows;
    for (;;) {
      const size_t rounds =
          std::min(std::min(safe_rounds(a, in_end), safe_rounds(b, in_end)),
                   std::min(safe_rounds(c, in_end), safe_rounds(d, in_end)));
      if (rounds == 0) break;
      for (size_t round = 0; round < rounds; ++round) {
        decode_round(&a, windows);
        decode_round(&b, windows);
        decode_round(&c, windows);
        decode_round(&d, windows);
      }
    }
    readers[0] = a, readers[1] = b, readers[2] = c, readers[3] = d;
  }
  for (unsigned s = 0; s < streams.count; ++s) {
    if (!finish_stream<W>(code, &readers[s], streams.symbols[s])) return false;
  }
  return true;
}

template <unsigned W>
DqaStatus decode_section(const HuffmanCode& code, const uint8_t* section, size_t size,
                         size_t count, uint8_t* plane, size_t* used, DqaError* error) {
  const uint8_t* in = section;
  const uint8_t* const in_end = section + size;
  const auto left = [&] { return static_cast<size_t>(in_end - in); };
  while (count > 0) {
    const size_t symbols = std::min(count, kBlockSymbols);
    const size_t raw = plane_bytes(symbols, W);
    if (left() < 2) {
      return fail(error, DQA_TRUNCATED,
                  "a block must start with the sizes of its streams; its strip is "
                  "truncated. Received: %zu bytes",
                  left());
    }
    if (load_bytes(in, 2) == 0) {
      in += 2;
      if (left() < raw) {
        return fail(error, DQA_TRUNCATED,
                    "a raw block must have %zu bytes; its strip is truncated. "
                    "Received: %zu bytes",
                    raw, left());
      }
      std::memcpy(plane, in, raw);
      in += raw;
    } else {
      const Streams streams = streams_of(symbols);
      if (left() < 2 * streams.count) {
        return fail(error, DQA_TRUNCATED,
                    "a block must start with the sizes of its streams; its strip is "
                    "truncated. Received: %zu bytes",
                    left());
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
      if (left() < coded) {
        return fail(error, DQA_TRUNCATED,
                    "a block must end inside its strip. Received: %zu bytes for a "
                    "block of %zu",
                    left(), coded);
      }
      if (!decode_streams<W>(code, streams, sizes, in + 2 * streams.count, in_end,
                             plane)) {
        return fail(error, DQA_CORRUPT,
                    "a stream's symbols must end in its last byte. Received: a block "
                    "of %zu symbols whose do not",
                    symbols);
      }
      in += coded;
    }
    plane += symbols * W / 8;
    count -= symbols;
  }
  *used = static_cast<size_t>(in - section);
  return DQA_OK;
}

}  // namespace

DqaStatus build_huffman(const uint8_t* lengths, unsigned width, const char* what,
                        HuffmanCode* code, DqaError* error) {
  const unsigned symbols = 1u << width;
  code->width = width;
  if (width == 0) {
    if (lengths[0] == 0) return DQA_OK;
    return fail(error, DQA_BAD_TABLE,
                "%s: a single symbol takes no bits. Received: length=%u", what,
                unsigned{lengths[0]});
  }
  unsigned kraft = 0, counts[kMaxCodeLength + 1] = {};
  for (unsigned symbol = 0; symbol < symbols; ++symbol) {
    const unsigned length = lengths[symbol];
    if (length < 1 || length > kMaxCodeLength) {
      return fail(error, DQA_BAD_TABLE,
                  "%s: code lengths must be in 1..%u. Received: %u for symbol %u", what,
                  kMaxCodeLength, length, symbol);
    }
    kraft += 1u << (kMaxCodeLength - length);
    ++counts[length];
  }
  if (kraft != kWindow) {
    return fail(error, DQA_BAD_TABLE,
                "%s: code lengths must fill the code space exactly; they are %s. "
                "Received: %u/%u of it",
                what, kraft > kWindow ? "over-subscribed" : "incomplete", kraft,
                kWindow);
  }
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
  fill_chunks(code);
  return DQA_OK;
}

// Symbol widths are compiled in: they decide shifts and table shapes in the inner loops.
#define DQA_FOR_WIDTH(W, CALL)    \
  switch (W) {                    \
    case 1: return CALL(1);       \
    case 2: return CALL(2);       \
    case 3: return CALL(3);       \
    case 4: return CALL(4);       \
    case 5: return CALL(5);       \
    case 6: return CALL(6);       \
    case 7: return CALL(7);       \
    default: return CALL(8);      \
  }

size_t encode_blocks(const HuffmanCode& code, const uint8_t* plane, size_t count,
                     uint8_t* out, uint8_t* scratch) {
#define DQA_ENCODE(W) encode_section<W>(code, plane, count, out, scratch)
  DQA_FOR_WIDTH(code.width, DQA_ENCODE)
#undef DQA_ENCODE
}

DqaStatus decode_blocks(const HuffmanCode& code, const uint8_t* section, size_t size,
                        size_t count, uint8_t* plane, size_t* used, DqaError* error) {
#define DQA_DECODE(W) \
  decode_section<W>(code, section, size, count, plane, used, error)
  DQA_FOR_WIDTH(code.width, DQA_DECODE)
#undef DQA_DECODE
}

}  // namespace dqa
