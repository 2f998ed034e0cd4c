// huff0, the Huffman stage of zstandard, for benchmarks/codec.py to time beside our
// own. The library keeps it to itself, so the prototypes stand here as in its huf.h.
// Code and decoding tables are made once and outside what is timed, as for our codec.
#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#if ZSTD_VERSION_NUMBER < 10504
#error "huff0 took its flags from zstd 1.5.4 on"
#endif

extern "C" {
size_t HUF_buildCTable_wksp(size_t* table, const unsigned* counts, uint32_t max_symbol,
                            uint32_t max_bits, void* work, size_t work_size);
size_t HUF_writeCTable_wksp(void* out, size_t capacity, const size_t* table,
                            unsigned max_symbol, unsigned bits, void* work,
                            size_t work_size);
size_t HUF_compress4X_usingCTable(void* out, size_t capacity, const void* from,
                                  size_t size, const size_t* table, int flags);
size_t HUF_readDTableX1_wksp(uint32_t* table, const void* from, size_t size, void* work,
                             size_t work_size, int flags);
size_t HUF_readDTableX2_wksp(uint32_t* table, const void* from, size_t size, void* work,
                             size_t work_size, int flags);
size_t HUF_decompress4X_usingDTable(void* out, size_t out_size, const void* from,
                                    size_t size, const uint32_t* table, int flags);
unsigned HUF_isError(size_t code);
}

namespace {

constexpr size_t kBlock = 128 << 10;  // the most symbols huff0 takes at a time
constexpr unsigned kMaxBits = 11;     // what zstd itself asks for
constexpr uint32_t kTableLog = 12;    // the largest tables it knows
constexpr int kBmi2 = 1;

struct Block {
  size_t begin, symbols;
  std::vector<uint8_t> bytes;
};

struct Huff0 {
  std::vector<Block> blocks;
  uint32_t one[1 + (1 << (kTableLog - 1))] = {(kTableLog - 1) * 0x01000001u};
  uint32_t two[1 + (1 << kTableLog)] = {kTableLog * 0x01000001u};
};

bool encode(const uint8_t* symbols, size_t count, Huff0* made) {
  std::vector<uint64_t> work(1 << 13);
  const size_t work_bytes = work.size() * sizeof work[0];
  unsigned counts[256] = {}, max_symbol = 0;
  for (size_t i = 0; i < count; ++i) ++counts[symbols[i]];
  for (unsigned s = 0; s < 256; ++s) max_symbol = counts[s] > 0 ? s : max_symbol;
  size_t table[257] = {};
  const size_t bits = HUF_buildCTable_wksp(table, counts, max_symbol, kMaxBits,
                                           work.data(), work_bytes);
  if (HUF_isError(bits)) return false;
  uint8_t header[256];
  const size_t header_bytes =
      HUF_writeCTable_wksp(header, sizeof header, table, max_symbol,
                           static_cast<unsigned>(bits), work.data(), work_bytes);
  if (HUF_isError(header_bytes) ||
      HUF_isError(HUF_readDTableX1_wksp(made->one, header, header_bytes, work.data(),
                                        work_bytes, kBmi2)) ||
      HUF_isError(HUF_readDTableX2_wksp(made->two, header, header_bytes, work.data(),
                                        work_bytes, kBmi2))) {
    return false;
  }
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t part = count - begin < kBlock ? count - begin : kBlock;
    Block block = {begin, part, std::vector<uint8_t>(2 * part + 512)};
    const size_t size = HUF_compress4X_usingCTable(
        block.bytes.data(), block.bytes.size(), symbols + begin, part, table, kBmi2);
    if (HUF_isError(size) || size == 0) return false;
    block.bytes.resize(size);
    made->blocks.push_back(block);
  }
  return true;
}

}  // namespace

extern "C" {

// Encodes symbols of a byte each; NULL if huff0 will not have them.
void* huff0_open(const uint8_t* symbols, size_t count) {
  Huff0* const opened = new Huff0;
  if (encode(symbols, count, opened)) return opened;
  delete opened;
  return nullptr;
}

void huff0_close(void* opened) { delete static_cast<Huff0*>(opened); }

size_t huff0_size(const void* opened) {
  size_t bytes = 0;
  for (const Block& block : static_cast<const Huff0*>(opened)->blocks) {
    bytes += block.bytes.size();
  }
  return bytes;
}

// Decodes everything, with a table of one or of up to two symbols a look-up; 0 if done.
int huff0_decode(const void* opened, int two_symbols, uint8_t* out) {
  const Huff0& huff0 = *static_cast<const Huff0*>(opened);
  const uint32_t* const table = two_symbols != 0 ? huff0.two : huff0.one;
  for (const Block& block : huff0.blocks) {
    const size_t size = HUF_decompress4X_usingDTable(out + block.begin, block.symbols,
                                                     block.bytes.data(),
                                                     block.bytes.size(), table, kBmi2);
    if (HUF_isError(size) || size != block.symbols) return 1;
  }
  return 0;
}
}
