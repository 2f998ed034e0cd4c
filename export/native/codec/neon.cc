// The path for 64-bit Arm: NEON for the values, 64-bit integers for the bits.
#include "codec/codec.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include "codec/groups.h"

namespace dqa {
namespace {

int16x4_t quantize4(const float* x, const float* inverse_scale, const float* low,
                    const float* high) {
  float32x4_t v = vmulq_f32(vld1q_f32(x), vld1q_f32(inverse_scale));
  v = vmaxnmq_f32(v, vld1q_f32(low));  // the number, if one of both is a NaN
  v = vminnmq_f32(v, vld1q_f32(high));
  return vmovn_s32(vcvtnq_s32_f32(v));  // rounds half to even
}

struct Neon {
  static uint64_t quantize8(const float* x, const float* inverse_scale,
                            const float* low, const float* high) {
    const int16x8_t codes =
        vcombine_s16(quantize4(x, inverse_scale, low, high),
                     quantize4(x + 4, inverse_scale + 4, low + 4, high + 4));
    return vget_lane_u64(vreinterpret_u64_s8(vmovn_s16(codes)), 0);
  }

  static void dequantize8(uint64_t codes, bool is_signed, const float* scale,
                          float* x) {
    const uint8x8_t bytes = vcreate_u8(codes);
    const int16x8_t wide = is_signed ? vmovl_s8(vreinterpret_s8_u8(bytes))
                                     : vreinterpretq_s16_u16(vmovl_u8(bytes));
    const float32x4_t first = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
    const float32x4_t second = vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)));
    vst1q_f32(x, vmulq_f32(first, vld1q_f32(scale)));
    vst1q_f32(x + 4, vmulq_f32(second, vld1q_f32(scale + 4)));
  }
};

}  // namespace

const Kernels* neon_kernels() {
  // Streams of bits are 64-bit integer work: the scalar functions are already right.
  static const Kernels kKernels = {DQA_NEON,
                                   {pack_all<Neon, true>, pack_all<Neon, false>},
                                   {unpack_all<Neon, true>, unpack_all<Neon, false>},
                                   scalar_kernels().encode,
                                   scalar_kernels().decode};
  return &kKernels;
}

}  // namespace dqa

#else

namespace dqa {
const Kernels* neon_kernels() { return nullptr; }
}  // namespace dqa

#endif
