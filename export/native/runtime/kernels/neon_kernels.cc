// The paths for 64-bit Arm: which kernels they have, depthwise convolutions, and rows.
#include "runtime/kernels/neon.h"
#include "runtime/kernels/winograd_rows.h"

#if defined(__aarch64__)

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include <cstring>

namespace dqa {
namespace {

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

void depthwise(const DepthwiseRow& row, Epilogue* epilogue) {
  if (row.wide || epilogue->channels != kBlock) {
    scalar_runtime_kernels().depthwise(row, epilogue);
    return;
  }
  static constexpr TileKernel<DepthwiseRow> kTiles[] = {
      depthwise_tile<1>, depthwise_tile<2>, depthwise_tile<3>, depthwise_tile<4>};
  run_batches(row, kTiles, 4, neon_requantize, epilogue);
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
  kernels.requantize = neon_requantize;
  return kernels;
}

}  // namespace

const RuntimeKernels* neon_runtime_kernels() {
  static const RuntimeKernels kKernels = kernels_of(DQA_NEON, neon_conv, neon_sums);
  return &kKernels;
}

const RuntimeKernels* neon_dot_runtime_kernels() {
  static const RuntimeKernels kKernels =
      kernels_of(DQA_NEON_DOT, neon_dot_conv, neon_dot_sums);
  return has_dot() ? &kKernels : nullptr;
}

}  // namespace dqa

#else

namespace dqa {
const RuntimeKernels* neon_runtime_kernels() { return nullptr; }
const RuntimeKernels* neon_dot_runtime_kernels() { return nullptr; }
}  // namespace dqa

#endif
