// Convolutions on 64-bit Arm without dot products: long multiplies.
#include "runtime/kernels/neon.h"

#if defined(__aarch64__)

#include <cstring>

DQA_NEON_KEEP_ORDER

namespace dqa {
namespace {

// Products of 16 bits, which pairs of sums take in: for codes up to 127.
template <End kEnd, unsigned kPixels>
void conv_tiles(const ConvRow& row, size_t offset, size_t tiles, Ends to) {
  for (; tiles > 0; --tiles, offset += kPixels * row.pixel_bytes) {
    int32x4_t total[kPixels][8];
    DQA_NEON_UNROLL
    for (unsigned p = 0; p < kPixels; ++p) {
      for (unsigned i = 0; i < 8; ++i) total[p][i] = vdupq_n_s32(0);
    }
    const int8_t* weights = row.weights;
    for (unsigned y = 0; y < row.taps_y; ++y) {
      for (unsigned run = 0; run < row.runs; ++run) {
        const uint8_t* at = row.rows[y] + offset + run * row.run_bytes;
        const int8_t* const end = weights + row.run_groups * kBlock * kGroup;
        for (; weights != end; weights += kBlock * kGroup, at += kGroup) {
          DQA_NEON_UNROLL
          for (unsigned q = 0; q < 4; ++q) {
            const int8x16_t w = vld1q_s8(weights + 16 * q);
            DQA_NEON_UNROLL
            for (unsigned p = 0; p < kPixels; ++p) {
              int32_t four;
              std::memcpy(&four, at + p * row.pixel_bytes, sizeof four);
              const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
              int32x4_t* const sum = &total[p][2 * q];
              sum[0] = vpadalq_s16(sum[0], vmull_s8(vget_low_s8(w), vget_low_s8(x)));
              sum[1] = vpadalq_s16(sum[1], vmull_high_s8(w, x));
            }
          }
        }
      }
    }
    int32x4_t sums[kPixels][4];
    DQA_NEON_UNROLL
    for (unsigned p = 0; p < kPixels; ++p) {
      DQA_NEON_UNROLL
      for (unsigned q = 0; q < 4; ++q) {
        const int32x4_t four = vpaddq_s32(total[p][2 * q], total[p][2 * q + 1]);
        sums[p][q] = vaddq_s32(four, vld1q_s32(row.start + 4 * q));
      }
    }
    finish_pixels<kEnd, kPixels>(sums, to);
  }
}

template <End kEnd, unsigned kPixels>
void conv_long(const ConvRow& row, size_t offset, size_t tiles, const Ends& to,
               unsigned blocks) {
  ConvRow block = row;
  Ends ends = to;
  for (;; --blocks) {
    conv_tiles<kEnd, kPixels>(block, offset, tiles, ends);
    if (blocks == 1) return;
    block.next_block();
    block.rows += block.rows_step;
    ends.next_block();
  }
}

template <bool kWide>
int16x4_t four_words(const uint8_t* at) {
  if (kWide) {
    int16_t words[4];
    std::memcpy(words, at, sizeof words);
    return vld1_s16(words);
  }
  uint8_t bytes[8] = {};
  std::memcpy(bytes, at, 4);
  return vget_low_s16(vreinterpretq_s16_u16(vmovl_u8(vld1_u8(bytes))));
}

// Products of 16-bit numbers: for codes of 8 bits and wide ones, one block.
template <bool kWide>
void conv_words(const ConvRow& row, size_t offset, size_t tiles, const Ends& ends,
                unsigned) {
  Ends to = ends;
  for (; tiles > 0; --tiles, offset += row.pixel_bytes, ++to.sums) {
    int32x4_t total[kBlock];
    for (int32x4_t& sum : total) sum = vdupq_n_s32(0);
    const int8_t* weights = row.weights;
    constexpr size_t kStep = kGroup * (kWide ? 2 : 1);
    for (unsigned y = 0; y < row.taps_y; ++y) {
      for (unsigned run = 0; run < row.runs; ++run) {
        const uint8_t* at = row.rows[y] + offset + run * row.run_bytes;
        for (size_t g = 0; g < row.run_groups; ++g, at += kStep) {
          const int16x4_t x = four_words<kWide>(at);
          for (unsigned o = 0; o < kBlock; o += 2, weights += 2 * kGroup) {
            const int16x8_t w = vmovl_s8(vld1_s8(weights));
            total[o] = vmlal_s16(total[o], vget_low_s16(w), x);
            total[o + 1] = vmlal_s16(total[o + 1], vget_high_s16(w), x);
          }
        }
      }
    }
    for (unsigned o = 0; o < kBlock; ++o)
      to.sums[0][o] = row.start[o] + vaddvq_s32(total[o]);
  }
}

constexpr TilesKernel<ConvRow> kSums[] = {conv_long<End::kSums, 1>,
                                          conv_long<End::kSums, 2>},
                               kCodes[] = {conv_long<End::kCodes, 1>,
                                           conv_long<End::kCodes, 2>};
constexpr TilesKernel<ConvRow> kWords = conv_words<true>, kBytes = conv_words<false>;

}  // namespace

void neon_conv(const ConvRow& row, Epilogue* epilogue) {
  if (!row.wide && row.peak <= 127) {
    return run_blocks(row, {2, kSums, kCodes, nullptr, nullptr}, *epilogue);
  }
  run_blocks(row, {1, row.wide ? &kWords : &kBytes, nullptr, nullptr, nullptr},
             *epilogue);
}

void neon_sums(const ConvRow& row, int32_t* sums) {
  run_sums(row, {2, kSums, nullptr, nullptr, nullptr}, sums);
}

}  // namespace dqa

#endif
