// A codec: one layer's table, prepared for groups of eight values.
#ifndef DQA_CODEC_CODEC_H_
#define DQA_CODEC_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec/bits.h"
#include "codec/huffman.h"
#include "dqa/codec.h"

namespace dqa {

// What a group of eight consecutive values needs to know, by the channel of its first
// one. Groups follow each other through the channels with a period, so nothing depends
// on C being a multiple of eight.
struct Phase {
  uint64_t base_mask;      // where the base code sits in each byte of a code
  uint64_t residual_mask;  // where the residual sits; 0 in unimportant channels
  uint64_t important;      // 0xff in important channels
  uint64_t codes;          // the bits of each code
  uint64_t zero;           // how many codes lie below 0, in each byte
  uint64_t move[3];        // bytes that move down 1, 2, 4 places when the residuals of
                           // important channels are brought together
  uint8_t residual_bits[8];  // of this group; of it and the next; ... of four. Then 0
};

// What a vector of sixteen consecutive values needs to know, in the order in which they
// follow each other. Vectors begin again after channels / gcd(channels, 16) of them.
struct Sixteen {
  int8_t shift[16];             // of base codes: the bits of the residuals below them
  uint8_t codes[16], zero[16];  // as in `Phase`
  uint8_t rank[16];  // of its residual among those of the vector; 255 if it has none
  uint8_t important[16];  // the places of important values, in order; then 255
  // Where the residuals are if they have two bits each: in which byte (255: nowhere),
  // and shifted by how much.
  uint8_t pair_byte[16];
  int8_t pair_shift[16];
  size_t residuals;
};

// Most values of a tensor: far below where sizes could overflow.
constexpr size_t kMaxValues = size_t{1} << (sizeof(size_t) > 4 ? 40 : 28);

// Groups reach this many channels past C, so that four of them can be taken in a row.
constexpr size_t kWrap = 32;

struct Kernels {
  using Pack = void (*)(const DqaCodec&, const void* values, size_t count,
                        uint8_t* base, uint8_t* residual);
  using Unpack = void (*)(const DqaCodec&, const uint8_t* base, const uint8_t* residual,
                          size_t count, void* values);
  // Writes a section of blocks; returns its bytes, at most blocks_bound. The plane has
  // kPlaneSlack readable bytes behind it, the scratch kEncodeScratch bytes.
  using Encode = size_t (*)(const HuffmanCode&, const uint8_t* plane, size_t count,
                            uint8_t* out, uint8_t* scratch);
  // Reads a section; `size` is what is left of its strip. The plane has kPlaneSlack
  // writable bytes behind it.
  using Decode = DqaStatus (*)(const HuffmanCode&, const uint8_t* section, size_t size,
                               size_t count, uint8_t* plane, size_t* used,
                               DqaError* error);
  DqaIsa isa;
  Pack pack[2];      // by DqaType
  Unpack unpack[2];  // by DqaType
  Encode encode;
  Decode decode;
  bool takes_sixteens = false;  // whether codecs must have `sixteens`
  // Between raw strips and lines: codes that count up from their zero, all with as many
  // bits, of which unimportant channels lack the lowest. False: not of this codec or
  // size. NULL: never.
  bool (*pack_line)(const DqaCodec&, const uint8_t* line, size_t count,
                    uint8_t* strip) = nullptr;
  bool (*unpack_line)(const DqaCodec&, const uint8_t* strip, size_t count,
                      uint8_t* line) = nullptr;
};

const Kernels& scalar_kernels();
// NULL where the instruction set is not compiled in or this machine lacks it.
const Kernels* avx2_kernels();
const Kernels* neon_kernels();

}  // namespace dqa

struct DqaCodec {
  unsigned bits = 0, extra_bits = 0;
  bool is_signed = false;   // whether codes lie below 0
  unsigned zero_point = 0;  // how many of the base codes do
  size_t channels = 0, important = 0;
  bool narrow = false;  // any four groups in a row have at most 56 residual bits
  const dqa::Kernels* kernels = nullptr;
  // Each of channels + kWrap entries, repeated with a period of C.
  std::unique_ptr<dqa::Phase[]> phases;
  std::unique_ptr<dqa::Sixteen[]> sixteens;
  size_t sixteen_count = 0;
  std::unique_ptr<float[]> scale, inverse_scale, low, high;
  dqa::Joiner join_base{8}, join_residual{8};
  // NULL where the table has no codewords, or symbols of no bits.
  std::unique_ptr<dqa::HuffmanCode> base_code, residual_code;

  // Whether it has the codewords of a storage class.
  bool can_code(DqaStorage storage) const {
    if (storage == DQA_RAW) return true;
    if (storage == DQA_ALL && base_code == nullptr) return false;
    return extra_bits == 0 || residual_code != nullptr;
  }

  size_t residual_count(size_t count) const {
    return extra_bits == 0 ? 0 : count / channels * important;
  }
};

#endif  // DQA_CODEC_CODEC_H_
