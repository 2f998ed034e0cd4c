// From sums to codes on 64-bit Arm.
#include "runtime/kernels/neon.h"

#if defined(__aarch64__)

#include <cstring>

namespace dqa {
namespace {

struct Sixteen {
  float32x4_t part[4];
};

Sixteen load16(const float* at) {
  return {{vld1q_f32(at), vld1q_f32(at + 4), vld1q_f32(at + 8), vld1q_f32(at + 12)}};
}

// Rounds half to even; what is too large for 16 bits becomes the largest number.
int16x8_t rounded8(float32x4_t low, float32x4_t high) {
  return vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(low)), vcvtnq_s32_f32(high));
}

struct Words {
  int16x8_t part[2];
};

Words rounded16(const Sixteen& v) {
  return {{rounded8(v.part[0], v.part[1]), rounded8(v.part[2], v.part[3])}};
}

// As many bytes as there are channels, for sixteen of them: nothing is read or written
// behind the last, where another thread may be at work.
template <size_t kBytes>
void copy_channels(void* to, const void* from, size_t channels) {
  std::memcpy(to, from, channels * kBytes);
}

template <bool kWhole>
uint8x16_t load_codes(const uint8_t* at, size_t channels) {
  if (kWhole) return vld1q_u8(at);
  if (channels == 8) return vcombine_u8(vld1_u8(at), vdup_n_u8(0));
  uint8_t codes[kBlock] = {};
  copy_channels<1>(codes, at, channels);
  return vld1q_u8(codes);
}

template <bool kWhole>
void store_codes(uint8_t* to, uint8x16_t codes, size_t channels) {
  if (kWhole) {
    vst1q_u8(to, codes);
  } else if (channels == 8) {
    vst1_u8(to, vget_low_u8(codes));
  } else {
    uint8_t bytes[kBlock];
    vst1q_u8(bytes, codes);
    copy_channels<1>(to, bytes, channels);
  }
}

template <bool kWhole>
Words load_words(const uint8_t* at, size_t channels) {
  uint8_t bytes[2 * kBlock] = {};
  if (!kWhole) {
    copy_channels<2>(bytes, at, channels);
    at = bytes;
  }
  return {
      {vreinterpretq_s16_u8(vld1q_u8(at)), vreinterpretq_s16_u8(vld1q_u8(at + 16))}};
}

template <bool kWhole>
void store_words(uint8_t* to, const Words& words, size_t channels) {
  uint8_t bytes[2 * kBlock];
  uint8_t* const at = kWhole ? to : bytes;
  vst1q_u8(at, vreinterpretq_u8_s16(words.part[0]));
  vst1q_u8(at + 16, vreinterpretq_u8_s16(words.part[1]));
  if (!kWhole) copy_channels<2>(to, bytes, channels);
}

template <bool kWhole>
void store_floats(uint8_t* to, const Sixteen& values, size_t channels) {
  uint8_t bytes[4 * kBlock];
  uint8_t* const at = kWhole ? to : bytes;
  for (unsigned q = 0; q < 4; ++q) {
    vst1q_u8(at + 16 * q, vreinterpretq_u8_f32(values.part[q]));
  }
  if (!kWhole) copy_channels<4>(to, bytes, channels);
}

// An addend's codes above its zero.
template <bool kWhole>
Words addend_words(const Addend& a, const uint8_t* at, size_t channels) {
  if (a.wide) return load_words<kWhole>(at, channels);
  const uint8x16_t codes = load_codes<kWhole>(at, channels),
                   zero = vdupq_n_u8(static_cast<uint8_t>(a.zero));
  return {{vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(codes), vget_low_u8(zero))),
           vreinterpretq_s16_u16(vsubl_high_u8(codes, zero))}};
}

struct Bounds {
  Words low, high;
};

Bounds bounds(const Epilogue& e) {
  return {rounded16(load16(e.low)), rounded16(load16(e.high))};
}

bool all_at_least(const Words& words, int16_t bound) {
  return vminvq_s16(vminq_s16(words.part[0], words.part[1])) >= bound;
}

Words cut(Words words, const Bounds& bounds) {
  for (unsigned h = 0; h < 2; ++h) {
    const int16x8_t raised = vmaxq_s16(words.part[h], bounds.low.part[h]);
    words.part[h] = vminq_s16(raised, bounds.high.part[h]);
  }
  return words;
}

// How values become codes of a byte: rounding and cutting may change places, as both
// keep order. Codes without a sign are cut as bytes, before they are shifted and moved
// by their zero; others as words.
template <bool kSigned>
struct Codes {
  Bounds bounds;
  uint8x16_t low, high, zero;
  int8x16_t shift;

  Codes(const Epilogue& e, const Bounds& b) : bounds(b) {
    low = bytes(b.low);
    high = bytes(b.high);
    zero = vdupq_n_u8(static_cast<uint8_t>(e.zero));
    int16x8_t exponents[2];
    for (unsigned h = 0; h < 2; ++h) {
      const float* const power = e.power + 8 * h;
      exponents[h] = vcombine_s16(exponent(power), exponent(power + 4));
    }
    shift = vmovn_high_s16(vmovn_s16(exponents[0]), exponents[1]);
  }

  // Of powers of two.
  static int16x4_t exponent(const float* power) {
    const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(power));
    return vmovn_s32(
        vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32(bits, 23)), vdupq_n_s32(127)));
  }

  static uint8x16_t bytes(const Words& words) {
    return vqmovun_high_s16(vqmovun_s16(words.part[0]), words.part[1]);
  }

  uint8x16_t operator()(const Sixteen& v) const {
    const Words words = rounded16(v);
    uint8x16_t codes;
    if (kSigned) {
      const Words within = cut(words, bounds);
      codes = vuzp1q_u8(vreinterpretq_u8_s16(within.part[0]),
                        vreinterpretq_u8_s16(within.part[1]));
    } else {
      codes = vminq_u8(vmaxq_u8(bytes(words), low), high);
    }
    return vaddq_u8(vshlq_u8(codes, shift), zero);
  }
};

struct Wides {
  Bounds bounds;

  Words operator()(const Sixteen& v) const { return cut(rounded16(v), bounds); }
};

struct Floats {
  Sixteen low, high;

  Sixteen operator()(const Sixteen& v) const {
    Sixteen cut;
    for (unsigned q = 0; q < 4; ++q) {
      cut.part[q] = vminq_f32(vmaxq_f32(v.part[q], low.part[q]), high.part[q]);
    }
    return cut;
  }
};

// All pixels, with the arrays of sums in registers. Of each way to end there are two
// functions: for sums alone, and for whatever else is met, which is rarer.
template <bool kOnlySums, bool kWhole, class End, class Store>
void requantize_pixels(const Epilogue& e, const int32_t (*sums)[kBlock],
                       unsigned pixels, const End& end, const Store& store) {
  const bool has_sums = kOnlySums || e.multiplier != nullptr;
  const unsigned addends = kOnlySums ? 0 : e.addends;
  const Sixteen bias = load16(e.bias),
                multiplier = load16(has_sums ? e.multiplier : e.bias);
  const uint8_t* from[2] = {e.addend[0].codes, e.addend[1].codes};
  const bool averages = e.averages;
  const size_t step = e.out_bytes;
  uint8_t* out = e.out;
  for (unsigned p = 0; p < pixels; ++p, out += step) {
    Sixteen v = bias;
    if (has_sums) {
      for (unsigned q = 0; q < 4; ++q) {
        float32x4_t sum = vcvtq_f32_s32(vld1q_s32(sums[p] + 4 * q));
        if (averages) sum = vmulq_n_f32(sum, e.share);
        v.part[q] = vaddq_f32(vmulq_f32(sum, multiplier.part[q]), bias.part[q]);
      }
    }
    for (unsigned k = 0; k < addends; ++k) {
      const Addend& addend = e.addend[k];
      const Words words = addend_words<kWhole>(addend, from[k], e.channels);
      for (unsigned q = 0; q < 4; ++q) {
        const int16x8_t half = words.part[q / 2];
        const float32x4_t codes = vcvtq_f32_s32(
            q % 2 != 0 ? vmovl_high_s16(half) : vmovl_s16(vget_low_s16(half)));
        const float32x4_t scale = vld1q_f32(addend.scale + 4 * q);
        v.part[q] = vaddq_f32(v.part[q], vmulq_f32(codes, scale));
      }
      from[k] += addend.pixel_bytes;
    }
    store(out, end(v), e.channels);
  }
}

template <bool kOnlySums, bool kWhole>
void requantize_as(const Epilogue& e, const int32_t (*sums)[kBlock], unsigned pixels) {
  if (e.type == Type::kFloat) {
    const Floats end = {load16(e.low), load16(e.high)};
    return requantize_pixels<kOnlySums, kWhole>(e, sums, pixels, end,
                                                store_floats<kWhole>);
  }
  const Bounds b = bounds(e);
  if (e.type == Type::kWide) {
    requantize_pixels<kOnlySums, kWhole>(e, sums, pixels, Wides{b},
                                         store_words<kWhole>);
  } else if (all_at_least(b.low, 0)) {
    requantize_pixels<kOnlySums, kWhole>(e, sums, pixels, Codes<false>(e, b),
                                         store_codes<kWhole>);
  } else {
    requantize_pixels<kOnlySums, kWhole>(e, sums, pixels, Codes<true>(e, b),
                                         store_codes<kWhole>);
  }
}

}  // namespace

void neon_requantize(const Epilogue& e, const int32_t (*sums)[kBlock],
                     unsigned pixels) {
  if (e.plain != nullptr && !e.plain->has_sign && e.multiplier != nullptr &&
      !e.averages && e.addends == 0 && e.channels == kBlock) {
    const PlainArrays arrays = load_arrays(e);
    uint8_t* out = e.out;
    for (unsigned p = 0; p < pixels; ++p, out += e.out_bytes) {
      const int32x4_t sum[4] = {vld1q_s32(sums[p]), vld1q_s32(sums[p] + 4),
                                vld1q_s32(sums[p] + 8), vld1q_s32(sums[p] + 12)};
      vst1q_u8(out, plain_codes(sum, arrays));
    }
    return;
  }
  const bool whole = e.channels == kBlock;
  if (e.multiplier != nullptr && e.addends == 0) {
    return whole ? requantize_as<true, true>(e, sums, pixels)
                 : requantize_as<true, false>(e, sums, pixels);
  }
  return whole ? requantize_as<false, true>(e, sums, pixels)
               : requantize_as<false, false>(e, sums, pixels);
}

}  // namespace dqa

#endif
