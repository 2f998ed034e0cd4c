// Convolutions on 64-bit Arm: dot products where the machine has them, long multiplies
// where not.
#include "runtime/kernels/neon.h"

#if defined(__aarch64__)

#include <cstring>

#if defined(__clang__)
#define TARGET_DOT __attribute__((target("dotprod")))
#define INLINE_DOT __attribute__((target("dotprod"), always_inline)) inline
#else
#define TARGET_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#define INLINE_DOT \
  __attribute__((target("arch=armv8.2-a+dotprod"), always_inline)) inline
#endif

DQA_NEON_KEEP_ORDER

namespace dqa {
namespace {

// What the inputs are: codes up to 127, which are valid signed bytes; any others; or
// wide ones, whose halves are multiplied apart.
enum class Inputs { kSmall, kBytes, kWide };

// Bytes above 127 are taken as so much less, and so are the low halves of wide inputs.
constexpr int8_t kLess = -128;

// Up to four groups of inputs.
template <Inputs kInputs>
struct Four {
  int8x16_t low, high;
};

// Up to 16 bytes, in words of four; nothing is read behind them.
template <size_t kBytes>
INLINE_DOT uint8x16_t load_bytes(const uint8_t* at) {
  if (kBytes == 16) return vld1q_u8(at);
  if (kBytes == 4) {
    uint32_t four;
    std::memcpy(&four, at, sizeof four);
    return vreinterpretq_u8_u32(vdupq_n_u32(four));
  }
  const uint8x8_t first = vld1_u8(at);
  if (kBytes == 8) return vcombine_u8(first, first);
  uint32_t last;
  std::memcpy(&last, at + 8, sizeof last);
  return vcombine_u8(first, vreinterpret_u8_u32(vdup_n_u32(last)));
}

template <Inputs kInputs, unsigned kGroups>
INLINE_DOT Four<kInputs> load_groups(const uint8_t* at) {
  const uint8x16_t flip = vdupq_n_u8(0x80);
  if (kInputs == Inputs::kWide) {
    constexpr size_t kBytes = 2 * kGroups * kGroup, kFirst = kBytes < 16 ? kBytes : 16;
    const uint8x16_t first = load_bytes<kFirst>(at);
    uint8x16_t last = first;
    if (kBytes > kFirst)
      last = load_bytes < kBytes == kFirst ? 16 : kBytes - kFirst > (at + 16);
    return {vreinterpretq_s8_u8(veorq_u8(vuzp1q_u8(first, last), flip)),
            vreinterpretq_s8_u8(vuzp2q_u8(first, last))};
  }
  const uint8x16_t bytes = load_bytes<kGroups * kGroup>(at);
  return {
      vreinterpretq_s8_u8(kInputs == Inputs::kBytes ? veorq_u8(bytes, flip) : bytes),
      vdupq_n_s8(0)};
}

template <unsigned kPixels>
struct Totals {
  int32x4_t part[kPixels][4];
};

// Adds the products of one group, number `kLane` of four, and moves on to the next.
template <Inputs kInputs, unsigned kPixels, int kLane>
INLINE_DOT void add_group(const int8_t*& weights, const Four<kInputs>* x,
                          Totals<kPixels>& low, Totals<kPixels>& high) {
  int8x16_t w[4];
  DQA_NEON_UNROLL
  for (unsigned q = 0; q < 4; ++q) w[q] = vld1q_s8(weights + 16 * q);
  weights += kBlock * kGroup;
  DQA_NEON_UNROLL
  for (unsigned p = 0; p < kPixels; ++p) {
    DQA_NEON_UNROLL
    for (unsigned q = 0; q < 4; ++q) {
      low.part[p][q] = vdotq_laneq_s32(low.part[p][q], w[q], x[p].low, kLane);
      if (kInputs != Inputs::kWide) continue;
      high.part[p][q] = vdotq_laneq_s32(high.part[p][q], w[q], x[p].high, kLane);
    }
  }
}

template <Inputs kInputs, unsigned kPixels, unsigned kGroups>
INLINE_DOT void add_groups(const uint8_t* at, size_t pixel_bytes,
                           const int8_t*& weights, Totals<kPixels>& low,
                           Totals<kPixels>& high) {
  Four<kInputs> x[kPixels];
  DQA_NEON_UNROLL
  for (unsigned p = 0; p < kPixels; ++p) {
    x[p] = load_groups<kInputs, kGroups>(at + p * pixel_bytes);
  }
  add_group<kInputs, kPixels, 0>(weights, x, low, high);
  if (kGroups > 1) add_group<kInputs, kPixels, 1>(weights, x, low, high);
  if (kGroups > 2) add_group<kInputs, kPixels, 2>(weights, x, low, high);
  if (kGroups > 3) add_group<kInputs, kPixels, 3>(weights, x, low, high);
}

template <Inputs kInputs, unsigned kPixels>
TARGET_DOT void conv_dot(const ConvRow& row, size_t tiles, int32_t (*sums)[kBlock]) {
  constexpr bool kWide = kInputs == Inputs::kWide;
  constexpr size_t kWeights = kBlock * kGroup, kBytes = kGroup * (kWide ? 2 : 1);
  const size_t step = row.pixel_bytes, rest = row.run_groups % 4;
  for (size_t offset = 0; tiles > 0;
       --tiles, offset += kPixels * step, sums += kPixels) {
    Totals<kPixels> low, high;
    DQA_NEON_UNROLL
    for (unsigned p = 0; p < kPixels; ++p) {
      DQA_NEON_UNROLL
      for (unsigned q = 0; q < 4; ++q) {
        low.part[p][q] = vld1q_s32(row.start + 4 * q);
        high.part[p][q] = vdupq_n_s32(0);
      }
    }
    const int8_t* weights = row.weights;
    for (unsigned y = 0; y < row.taps_y; ++y) {
      for (unsigned run = 0; run < row.runs; ++run) {
        const uint8_t* at = row.rows[y] + offset + run * row.run_bytes;
        const int8_t* const end = weights + (row.run_groups - rest) * kWeights;
        for (; weights != end; at += 4 * kBytes) {
          add_groups<kInputs, kPixels, 4>(at, step, weights, low, high);
        }
        if (rest == 1) add_groups<kInputs, kPixels, 1>(at, step, weights, low, high);
        if (rest == 2) add_groups<kInputs, kPixels, 2>(at, step, weights, low, high);
        if (rest == 3) add_groups<kInputs, kPixels, 3>(at, step, weights, low, high);
      }
    }
    DQA_NEON_UNROLL
    for (unsigned p = 0; p < kPixels; ++p) {
      DQA_NEON_UNROLL
      for (unsigned q = 0; q < 4; ++q) {
        int32x4_t sum = low.part[p][q];
        if (kWide) sum = vaddq_s32(sum, vshlq_n_s32(high.part[p][q], 8));
        vst1q_s32(sums[p] + 4 * q, sum);
      }
    }
  }
}

// What sums start with where inputs are taken as 128 less.
TARGET_DOT void raise_start(const ConvRow& row, int32_t* start) {
  int32x4_t sum[4];
  DQA_NEON_UNROLL
  for (unsigned q = 0; q < 4; ++q) sum[q] = vdupq_n_s32(0);
  const int8x16_t less = vdupq_n_s8(kLess);
  const int8_t* const end = row.weights + row.block_bytes;
  for (const int8_t* w = row.weights; w != end; w += kBlock * kGroup) {
    DQA_NEON_UNROLL
    for (unsigned q = 0; q < 4; ++q) {
      sum[q] = vdotq_s32(sum[q], vld1q_s8(w + 16 * q), less);
    }
  }
  DQA_NEON_UNROLL
  for (unsigned q = 0; q < 4; ++q) {
    vst1q_s32(start + 4 * q, vsubq_s32(vld1q_s32(row.start + 4 * q), sum[q]));
  }
}

constexpr TilesKernel<ConvRow> kSmallTiles[] = {
    conv_dot<Inputs::kSmall, 1>, conv_dot<Inputs::kSmall, 2>,
    conv_dot<Inputs::kSmall, 3>, conv_dot<Inputs::kSmall, 4>,
    conv_dot<Inputs::kSmall, 5>};
constexpr TilesKernel<ConvRow> kByteTiles[] = {
    conv_dot<Inputs::kBytes, 1>, conv_dot<Inputs::kBytes, 2>,
    conv_dot<Inputs::kBytes, 3>, conv_dot<Inputs::kBytes, 4>,
    conv_dot<Inputs::kBytes, 5>};
constexpr TilesKernel<ConvRow> kWideTiles[] = {conv_dot<Inputs::kWide, 1>,
                                               conv_dot<Inputs::kWide, 2>};

// The same with products of 16 bits, which pairs of sums take in.
template <unsigned kPixels>
void conv_long(const ConvRow& row, size_t tiles, int32_t (*sums)[kBlock]) {
  for (size_t offset = 0; tiles > 0;
       --tiles, offset += kPixels * row.pixel_bytes, sums += kPixels) {
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
    DQA_NEON_UNROLL
    for (unsigned p = 0; p < kPixels; ++p) {
      DQA_NEON_UNROLL
      for (unsigned q = 0; q < 4; ++q) {
        const int32x4_t four = vpaddq_s32(total[p][2 * q], total[p][2 * q + 1]);
        vst1q_s32(sums[p] + 4 * q, vaddq_s32(four, vld1q_s32(row.start + 4 * q)));
      }
    }
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

// Products of 16-bit numbers: for codes of 8 bits and wide ones.
template <bool kWide>
void conv_words(const ConvRow& row, size_t tiles, int32_t (*sums)[kBlock]) {
  for (size_t offset = 0; tiles > 0;
       --tiles, offset += 1 * row.pixel_bytes, sums += 1) {
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
      sums[0][o] = row.start[o] + vaddvq_s32(total[o]);
  }
}

using Rows16 = int32_t (*)[kBlock];

Rows16 rows_of(int32_t* sums) { return reinterpret_cast<Rows16>(sums); }

constexpr TilesKernel<ConvRow> kLongTiles[] = {conv_long<1>, conv_long<2>};

}  // namespace

void neon_dot_conv(const ConvRow& row, Epilogue* epilogue) {
  if (!row.wide && row.peak <= 127) {
    return run_batches(row, kSmallTiles, 5, epilogue);
  }
  int32_t start[kBlock];
  raise_start(row, start);
  ConvRow raised = row;
  raised.start = start;
  if (row.wide) return run_batches(raised, kWideTiles, 2, epilogue);
  run_batches(raised, kByteTiles, 5, epilogue);
}

void neon_dot_sums(const ConvRow& row, int32_t* sums) {
  compute_tiles(row, kSmallTiles, 5, row.pixels, rows_of(sums));
}

void neon_conv(const ConvRow& row, Epilogue* epilogue) {
  if (!row.wide && row.peak <= 127) {
    return run_batches(row, kLongTiles, 2, epilogue);
  }
  const TilesKernel<ConvRow> kernel = row.wide ? conv_words<true> : conv_words<false>;
  run_batches(row, &kernel, 1, epilogue);
}

void neon_sums(const ConvRow& row, int32_t* sums) {
  compute_tiles(row, kLongTiles, 2, row.pixels, rows_of(sums));
}

}  // namespace dqa

#endif
