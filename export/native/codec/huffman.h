// Canonical Huffman code, prepared for several symbols a look-up.
#ifndef DQA_CODEC_HUFFMAN_H_
#define DQA_CODEC_HUFFMAN_H_

#include <cstddef>
#include <cstdint>

namespace dqa {

constexpr unsigned kMaxCodeLength = 12;
constexpr size_t kBlockSymbols = 16384;
constexpr size_t kFourStreamsFrom = 256;
// Planes that are encoded from or decoded into have this many spare bytes behind them.
constexpr size_t kPlaneSlack = 8;
// What encoding one block may write before it turns out not to shrink.
constexpr size_t kStreamScratch = kBlockSymbols / 4 * kMaxCodeLength / 8 + 16;
constexpr size_t kEncodeScratch = 4 * kStreamScratch;

constexpr unsigned kWindow = 1u << kMaxCodeLength;

// One layer's code for symbols of `width` bits.
struct HuffmanCode {
  unsigned width;
  uint8_t lengths[256];
  uint16_t words[256];  // bit-reversed: written low bit first
  // By the next 12 bits of a stream: bits 0-5 say how many of them the whole codewords
  // in it take, bits 6-11 how many bits of a plane their symbols are, bits 12-31 are
  // those symbols.
  uint32_t windows[kWindow];
  // By the next 12 bits of a stream, for width 2 alone: four symbols of a code of four
  // always fit. Bits 0-7 say how many bits they take, bits 8-15 are a byte of a plane.
  uint16_t fours[kWindow];
  // By as many symbols as fit 12 bits of a plane: bits 0-55 are their codewords,
  // bits 56-63 how many bits that is.
  uint64_t chunks[kWindow];
};

// Builds the tables from 2^width lengths that `check_table` has found to be a code, of
// symbols of at least 1 bit.
void build_huffman(const uint8_t* lengths, unsigned width, HuffmanCode* code);

constexpr size_t blocks_bound(size_t count, unsigned width) {
  return count == 0 || width == 0
             ? 0
             : (count * width + 7) / 8 +
                   2 * ((count + kBlockSymbols - 1) / kBlockSymbols);
}

}  // namespace dqa

#endif  // DQA_CODEC_HUFFMAN_H_
