// The paths for 64-bit Arm: dot products where the machine has them, long multiplies
// where not.
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/tiles.h"
#include "runtime/kernels/winograd_rows.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include <cstring>

#if defined(__clang__)
#define TARGET_DOT __attribute__((target("dotprod")))
#else
#define TARGET_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

namespace dqa {
namespace {

int8x16_t four_bytes(const uint8_t* at) {
  int32_t value;
  std::memcpy(&value, at, sizeof value);
  return vreinterpretq_s8_s32(vdupq_n_s32(value));
}

// Codes up to 127 are valid signed bytes.
template <unsigned kPixels>
TARGET_DOT void conv_dot(const ConvRow& row, int32_t (*sums)[kBlock]) {
  int32x4_t total[kPixels][4];
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned q = 0; q < 4; ++q) total[p][q] = vld1q_s32(row.start + 4 * q);
  }
  const int8_t* weights = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      const int8_t* const end = weights + row.run_groups * kBlock * kGroup;
      for (; weights != end; weights += kBlock * kGroup, at += kGroup) {
        int8x16_t w[4];
        for (unsigned q = 0; q < 4; ++q) w[q] = vld1q_s8(weights + 16 * q);
        for (unsigned p = 0; p < kPixels; ++p) {
          int32_t four;
          std::memcpy(&four, at + p * row.pixel_bytes, sizeof four);
          const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
          for (unsigned q = 0; q < 4; ++q) {
            total[p][q] = vdotq_s32(total[p][q], w[q], x);
          }
        }
      }
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned q = 0; q < 4; ++q) vst1q_s32(sums[p] + 4 * q, total[p][q]);
  }
}

// The same with products of 16 bits, which pairs of sums take in.
template <unsigned kPixels>
void conv_long(const ConvRow& row, int32_t (*sums)[kBlock]) {
  int32x4_t total[kPixels][8];
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned i = 0; i < 8; ++i) total[p][i] = vdupq_n_s32(0);
  }
  const int8_t* weights = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      const int8_t* const end = weights + row.run_groups * kBlock * kGroup;
      for (; weights != end; weights += kBlock * kGroup, at += kGroup) {
        for (unsigned q = 0; q < 4; ++q) {
          const int8x16_t w = vld1q_s8(weights + 16 * q);
          for (unsigned p = 0; p < kPixels; ++p) {
            const int8x16_t x = four_bytes(at + p * row.pixel_bytes);
            int32x4_t* const sum = &total[p][2 * q];
            sum[0] = vpadalq_s16(sum[0], vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            sum[1] = vpadalq_s16(sum[1], vmull_high_s8(w, x));
          }
        }
      }
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned q = 0; q < 4; ++q) {
      const int32x4_t four = vpaddq_s32(total[p][2 * q], total[p][2 * q + 1]);
      vst1q_s32(sums[p] + 4 * q, vaddq_s32(four, vld1q_s32(row.start + 4 * q)));
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
void conv_words(const ConvRow& row, int32_t (*sums)[kBlock]) {
  int32x4_t total[kBlock];
  for (int32x4_t& sum : total) sum = vdupq_n_s32(0);
  const int8_t* weights = row.weights;
  constexpr size_t kStep = kGroup * (kWide ? 2 : 1);
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
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

template <unsigned kPixels>
void depthwise_tile(const DepthwiseRow& row, int32_t (*sums)[kBlock]) {
  int32x4_t total[kPixels][4];
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned q = 0; q < 4; ++q) total[p][q] = vld1q_s32(row.start + 4 * q);
  }
  const int8_t* weights = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    const uint8_t* at = row.rows[y];
    for (unsigned x = 0; x < row.taps_x; ++x) {
      const int8x16_t w = vld1q_s8(weights);
      const int16x8_t w0 = vmovl_s8(vget_low_s8(w)), w1 = vmovl_high_s8(w);
      for (unsigned p = 0; p < kPixels; ++p) {
        const uint8x16_t codes = vld1q_u8(at + p * row.pixel_bytes);
        const int16x8_t c0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes)));
        const int16x8_t c1 = vreinterpretq_s16_u16(vmovl_high_u8(codes));
        int32x4_t* const sum = total[p];
        sum[0] = vmlal_s16(sum[0], vget_low_s16(c0), vget_low_s16(w0));
        sum[1] = vmlal_high_s16(sum[1], c0, w0);
        sum[2] = vmlal_s16(sum[2], vget_low_s16(c1), vget_low_s16(w1));
        sum[3] = vmlal_high_s16(sum[3], c1, w1);
      }
      at += row.tap_bytes;
      weights += row.weight_step;
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned q = 0; q < 4; ++q) vst1q_s32(sums[p] + 4 * q, total[p][q]);
  }
}

// Codes of four channels of an addend.
int32x4_t addend_codes(const Addend& a, unsigned pixel, unsigned at) {
  const uint8_t* const codes = a.codes + pixel * a.pixel_bytes;
  int32_t four[4];
  for (unsigned i = 0; i < 4; ++i) {
    int16_t wide = 0;
    if (a.wide) std::memcpy(&wide, codes + 2 * (at + i), sizeof wide);
    four[i] = a.wide ? wide : codes[at + i];
  }
  return vld1q_s32(four);
}

void requantize(const Epilogue& e, const int32_t (*sums)[kBlock], unsigned pixels) {
  if (e.channels != kBlock) {
    scalar_runtime_kernels().requantize(e, sums, pixels);
    return;
  }
  for (unsigned p = 0; p < pixels; ++p) {
    uint8_t* const out = e.out + p * e.out_bytes;
    uint16x4_t words[4];
    for (unsigned at = 0; at < kBlock; at += 4) {
      float32x4_t v = vld1q_f32(e.bias + at);
      if (e.multiplier != nullptr) {
        float32x4_t sum = vcvtq_f32_s32(vld1q_s32(sums[p] + at));
        if (e.averages) sum = vmulq_n_f32(sum, e.share);
        v = vaddq_f32(vmulq_f32(sum, vld1q_f32(e.multiplier + at)), v);
      }
      for (unsigned k = 0; k < e.addends; ++k) {
        const Addend& a = e.addend[k];
        const int32x4_t centred =
            vsubq_s32(addend_codes(a, p, at), vdupq_n_s32(a.zero));
        v = vaddq_f32(v, vmulq_f32(vcvtq_f32_s32(centred), vld1q_f32(a.scale + at)));
      }
      v = vminq_f32(vmaxq_f32(v, vld1q_f32(e.low + at)), vld1q_f32(e.high + at));
      if (e.type == Type::kFloat) {
        vst1q_u8(out + 4 * at, vreinterpretq_u8_f32(v));
        continue;
      }
      const int32x4_t code = vcvtnq_s32_f32(v);  // rounds half to even
      if (e.type == Type::kWide) {
        vst1_u8(out + 2 * at, vreinterpret_u8_s16(vqmovn_s32(code)));
        continue;
      }
      const uint32x4_t power = vreinterpretq_u32_f32(vld1q_f32(e.power + at));
      const int32x4_t shift =
          vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32(power, 23)), vdupq_n_s32(127));
      const int32x4_t shifted = vaddq_s32(vshlq_s32(code, shift), vdupq_n_s32(e.zero));
      words[at / 4] = vreinterpret_u16_s16(vmovn_s32(shifted));
    }
    if (e.type != Type::kCodes) continue;
    vst1q_u8(out, vcombine_u8(vmovn_u16(vcombine_u16(words[0], words[1])),
                              vmovn_u16(vcombine_u16(words[2], words[3]))));
  }
}

// What codes above 127 and wide ones take on either machine; false for others.
bool conv_by_words(const ConvRow& row, Epilogue* epilogue) {
  if (!row.wide && row.peak <= 127) return false;
  const TileKernel<ConvRow> kernel = row.wide ? conv_words<true> : conv_words<false>;
  run_tiles(row, &kernel, 1, requantize, epilogue);
  return true;
}

constexpr TileKernel<ConvRow> kDotTiles[] = {conv_dot<1>, conv_dot<2>, conv_dot<3>,
                                             conv_dot<4>, conv_dot<5>, conv_dot<6>};
constexpr TileKernel<ConvRow> kLongTiles[] = {conv_long<1>, conv_long<2>};

void conv_with_dot(const ConvRow& row, Epilogue* epilogue) {
  if (!conv_by_words(row, epilogue)) run_tiles(row, kDotTiles, 6, requantize, epilogue);
}

void conv_without_dot(const ConvRow& row, Epilogue* epilogue) {
  if (!conv_by_words(row, epilogue))
    run_tiles(row, kLongTiles, 2, requantize, epilogue);
}

void sums_with_dot(const ConvRow& row, int32_t* out) {
  sum_tiles(row, kDotTiles, 6, out);
}

void sums_without_dot(const ConvRow& row, int32_t* out) {
  sum_tiles(row, kLongTiles, 2, out);
}

void depthwise(const DepthwiseRow& row, Epilogue* epilogue) {
  if (row.wide || epilogue->channels != kBlock) {
    scalar_runtime_kernels().depthwise(row, epilogue);
    return;
  }
  static constexpr TileKernel<DepthwiseRow> kTiles[] = {
      depthwise_tile<1>, depthwise_tile<2>, depthwise_tile<3>, depthwise_tile<4>};
  run_tiles(row, kTiles, 4, requantize, epilogue);
}

bool has_dot() {
#if defined(__linux__)
  constexpr unsigned long kAsimdDotProduct = 1ul << 20;
  return (getauxval(AT_HWCAP) & kAsimdDotProduct) != 0;
#else
  return true;  // every Apple machine of 64 bits since 2018
#endif
}

RuntimeKernels kernels_of(DqaIsa isa, ConvKernel conv, SumsKernel sums) {
  RuntimeKernels kernels = scalar_runtime_kernels();
  kernels.isa = isa;
  kernels.conv = conv;
  kernels.sums = sums;
  kernels.tile_shift = 0;  // both multiply signed bytes
  kernels.depthwise = depthwise;
  kernels.requantize = requantize;
  return kernels;
}

}  // namespace

const RuntimeKernels* neon_runtime_kernels() {
  static const RuntimeKernels kKernels =
      kernels_of(DQA_NEON, conv_without_dot, sums_without_dot);
  return &kKernels;
}

const RuntimeKernels* neon_dot_runtime_kernels() {
  static const RuntimeKernels kKernels =
      kernels_of(DQA_NEON_DOT, conv_with_dot, sums_with_dot);
  return has_dot() ? &kKernels : nullptr;
}

}  // namespace dqa

#else

namespace dqa {
const RuntimeKernels* neon_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_dot_runtime_kernels() { return nullptr; }
}  // namespace dqa

#endif
