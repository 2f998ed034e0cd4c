// The path for 64-bit Arm: codes go sixteen at a time; floats go through NEON, and
// their bits through 64-bit integers.
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

constexpr size_t kStep = 16;

// Takes `width` adjacent bits at a time into bytes: the first eight out of the first
// half of a vector, the others out of the second, which begins at byte `second`.
struct Splitter {
  uint8x16_t bytes[2];  // where the bits of a value are: two bytes
  int16x8_t down;
  uint8x16_t mask;

  Splitter(unsigned width, unsigned second) {
    uint8_t at[32];
    int16_t shift[8];
    for (unsigned i = 0; i < 8; ++i) {
      for (unsigned h = 0; h < 2; ++h) {
        at[16 * h + 2 * i] = static_cast<uint8_t>(i * width / 8 + second * h);
        at[16 * h + 2 * i + 1] = static_cast<uint8_t>(i * width / 8 + 1 + second * h);
      }
      shift[i] = static_cast<int16_t>(-static_cast<int>(i * width % 8));
    }
    bytes[0] = vld1q_u8(at);
    bytes[1] = vld1q_u8(at + 16);
    down = vld1q_s16(shift);
    mask = vdupq_n_u8(static_cast<uint8_t>((1u << width) - 1));
  }

  // Bits that begin in a later byte of `from`. What lies behind it counts as 0.
  uint8x16_t operator()(uint8x16_t from, size_t late) const {
    const uint8x16_t by = vdupq_n_u8(static_cast<uint8_t>(late));
    uint8x16_t half[2];
    for (unsigned h = 0; h < 2; ++h) {
      const uint8x16_t pairs = vqtbl1q_u8(from, vaddq_u8(bytes[h], by));
      half[h] = vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(pairs), down));
    }
    return vandq_u8(vuzp1q_u8(half[0], half[1]), mask);
  }
};

// The inverse: as `Joiner`, for both halves of a vector.
struct VectorJoiner {
  uint64x2_t low[3], high[3];
  int64x2_t down[3];

  explicit VectorJoiner(unsigned width) {
    for (unsigned step = 0; step < 3; ++step) {
      const unsigned lane = 16u << step, field = width << step;
      uint64_t mask = 0;
      for (unsigned at = 0; at < 64; at += lane) {
        mask |= ((uint64_t{1} << field) - 1) << at;
      }
      low[step] = vdupq_n_u64(mask);
      high[step] = vdupq_n_u64(mask << field);
      down[step] = vdupq_n_s64(static_cast<int>(field) - static_cast<int>(lane / 2));
    }
  }

  uint64x2_t operator()(uint8x16_t bytes) const {
    uint64x2_t x = vreinterpretq_u64_u8(bytes);
    for (unsigned step = 0; step < 3; ++step) {
      const uint64x2_t upper = vandq_u64(vshlq_u64(x, down[step]), high[step]);
      x = vorrq_u64(vandq_u64(x, low[step]), upper);
    }
    return x;
  }
};

// The order of vectors, again and again.
struct Turn {
  const Sixteen* at;
  const Sixteen *first, *end;

  explicit Turn(const DqaCodec& codec)
      : at(codec.sixteens.get()), first(at), end(at + codec.sixteen_count) {}

  const Sixteen& next() {
    const Sixteen& here = *at;
    if (++at == end) at = first;
    return here;
  }
};

// 64 bits of a plane from some bit on; what lies behind it is undefined.
uint64_t load_bits(const uint8_t* plane, size_t last, size_t bit) {
  const size_t byte = bit / 8 < last ? bit / 8 : last;
  return load8(plane + byte) >> ((bit - 8 * byte) & 63);
}

// Four base bits, the usual number, are halves of bytes.
template <bool kNibbles, bool kResiduals>
void unpack_codes(const DqaCodec& codec, const uint8_t* base, const uint8_t* residual,
                  size_t base_bytes, size_t residual_bytes, size_t count,
                  uint8_t* codes, UnpackState* state) {
  const size_t width = codec.bits;
  const Splitter split_base(codec.bits, codec.bits),
      split_residual(codec.extra_bits, 8);
  const size_t last = residual_bytes - 8, far = 8 * size_t{codec.extra_bits};
  const uint8_t* const last_base = base + base_bytes - 16;
  Turn turn(codec);
  for (; count - state->done >= kStep; state->done += kStep, base += 2 * width) {
    const Sixteen& here = turn.next();
    uint8x16_t v;
    if (kNibbles) {
      const uint8x8_t bytes = vld1_u8(base);
      v = vcombine_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
      v = vzip1q_u8(v, vextq_u8(v, v, 8));
    } else {
      const uint8_t* const from = base < last_base ? base : last_base;
      v = split_base(vld1q_u8(from), static_cast<size_t>(base - from));
    }
    v = vshlq_u8(v, vld1q_s8(here.shift));
    if (kResiduals) {
      uint64x2_t bits = vdupq_n_u64(load_bits(residual, last, state->residual_bit));
      if (here.residuals > 8) {
        bits = vsetq_lane_u64(load_bits(residual, last, state->residual_bit + far),
                              bits, 1);
      }
      const uint8x16_t ranked = split_residual(vreinterpretq_u8_u64(bits), 0);
      v = vorrq_u8(v, vqtbl1q_u8(ranked, vld1q_u8(here.rank)));
      state->residual_bit += here.residuals * codec.extra_bits;
    }
    const uint8x16_t zero = vld1q_u8(here.zero);
    v = vandq_u8(vaddq_u8(v, zero), vld1q_u8(here.codes));
    vst1q_u8(codes + state->done, vsubq_u8(v, zero));
  }
}

void unpack_sixteens(const DqaCodec& codec, const uint8_t* base,
                     const uint8_t* residual, size_t count, void* values) {
  const size_t base_bytes = plane_bytes(count, codec.bits);
  const size_t residual_bytes =
      plane_bytes(codec.residual_count(count), codec.extra_bits);
  UnpackState state;
  if (base_bytes >= 16 && (residual_bytes == 0 || residual_bytes >= 8)) {
    const auto chosen = codec.bits == 4
                            ? (residual_bytes == 0 ? unpack_codes<true, false>
                                                   : unpack_codes<true, true>)
                            : (residual_bytes == 0 ? unpack_codes<false, false>
                                                   : unpack_codes<false, true>);
    chosen(codec, base, residual, base_bytes, residual_bytes, count,
           static_cast<uint8_t*>(values), &state);
  }
  state.channel = state.done % codec.channels;
  unpack_groups<Neon, false>(codec, base + state.done / 8 * codec.bits, residual,
                             residual_bytes, count, values, state);
}

// Residuals on their way into a plane.
struct Bits {
  uint8_t* to;
  size_t left;  // bytes
  uint64_t waiting = 0;
  unsigned fill = 0;  // below 8

  void put(uint64_t bits, unsigned count) {
    waiting |= bits << fill;
    fill += count;
    if (left >= 8) {
      store8(to, waiting);
      const unsigned bytes = fill / 8;
      to += bytes;
      left -= bytes;
      waiting >>= 8 * bytes;
      fill %= 8;
    }
    for (; fill >= 8 && left > 0; fill -= 8, --left) {
      *to++ = static_cast<uint8_t>(waiting);
      waiting >>= 8;
    }
  }
};

// Stores sixteen base codes of `width` bits; nothing is written from `end` on.
template <bool kNibbles>
inline __attribute__((always_inline)) void store_base(uint8x16_t codes,
                                                      const VectorJoiner& join,
                                                      size_t width, uint8_t* base,
                                                      const uint8_t* end) {
  if (kNibbles) {
    const uint16x8_t pairs = vreinterpretq_u16_u8(codes);
    vst1_u8(base, vmovn_u16(vsraq_n_u16(pairs, pairs, 4)));
    return;
  }
  const uint64x2_t joined = join(codes);
  const uint64_t first = vgetq_lane_u64(joined, 0), second = vgetq_lane_u64(joined, 1);
  if (static_cast<size_t>(end - base) >= width + 8) {
    store8(base, first);
    store8(base + width, second);
  } else {
    store_bytes(base, first, width);
    store_bytes(base + width, second, width);
  }
}

template <bool kNibbles, bool kResiduals>
void pack_codes(const DqaCodec& codec, size_t count, const uint8_t* codes,
                uint8_t* base, size_t base_bytes, Bits* bits, size_t* done) {
  const size_t width = codec.bits;
  const uint8x16_t base_mask = vdupq_n_u8(static_cast<uint8_t>((1u << width) - 1)),
                   residual_mask =
                       vdupq_n_u8(static_cast<uint8_t>((1u << codec.extra_bits) - 1));
  const VectorJoiner join_base(codec.bits), join_residual(codec.extra_bits);
  const uint8_t* const end = base + base_bytes;
  Turn turn(codec);
  for (; count - *done >= kStep; *done += kStep, base += 2 * width) {
    const Sixteen& here = turn.next();
    const uint8x16_t v = vld1q_u8(codes + *done);
    const int8x16_t up = vld1q_s8(here.shift);
    const uint8x16_t upper = vandq_u8(vshlq_u8(v, vnegq_s8(up)), base_mask);
    store_base<kNibbles>(upper, join_base, width, base, end);
    if (!kResiduals) continue;
    const uint8x16_t ordered =
        vqtbl1q_u8(vandq_u8(v, residual_mask), vld1q_u8(here.important));
    const uint64x2_t joined = join_residual(ordered);
    const auto all = static_cast<unsigned>(here.residuals) * codec.extra_bits;
    const unsigned half = 8 * codec.extra_bits;
    bits->put(vgetq_lane_u64(joined, 0), all < half ? all : half);
    if (all > half) bits->put(vgetq_lane_u64(joined, 1), all - half);
  }
}

void pack_sixteens(const DqaCodec& codec, const void* values, size_t count,
                   uint8_t* base, uint8_t* residual) {
  const size_t residual_bytes =
      plane_bytes(codec.residual_count(count), codec.extra_bits);
  const auto chosen =
      codec.bits == 4
          ? (residual_bytes == 0 ? pack_codes<true, false> : pack_codes<true, true>)
          : (residual_bytes == 0 ? pack_codes<false, false> : pack_codes<false, true>);
  Bits bits = {residual, residual_bytes};
  PackState state;
  chosen(codec, count, static_cast<const uint8_t*>(values), base,
         plane_bytes(count, codec.bits), &bits, &state.done);
  state.channel = state.done % codec.channels;
  state.waiting = bits.waiting;
  state.fill = bits.fill;
  pack_groups<Neon, false>(codec, values, count, base + state.done / 8 * codec.bits,
                           bits.to, bits.left, state);
}

// Joins two bits of each byte.
uint64_t join_pairs(uint8x16_t bytes) {
  const uint16x8_t x = vreinterpretq_u16_u8(bytes);
  const uint32x4_t pairs = vreinterpretq_u32_u16(vsraq_n_u16(x, x, 6));
  const uint32x4_t fours = vsraq_n_u32(pairs, pairs, 12);
  const uint8x8_t low = vmovn_u16(vcombine_u16(vmovn_u32(fours), vdup_n_u16(0)));
  return vget_lane_u32(vreinterpret_u32_u8(low), 0);
}

uint8x16_t zero_of(const DqaCodec& codec) {
  return vdupq_n_u8(static_cast<uint8_t>(codec.zero_point << codec.extra_bits));
}

// The bits of a code.
uint8x16_t codes_of(const DqaCodec& codec) {
  return vdupq_n_u8(static_cast<uint8_t>((1u << (codec.bits + codec.extra_bits)) - 1));
}

template <bool kNibbles, bool kPairs>
void pack_line_as(const DqaCodec& codec, const uint8_t* line, size_t count,
                  uint8_t* base, uint8_t* residual, size_t residual_bytes) {
  const unsigned width = codec.bits, extra = codec.extra_bits;
  const uint8x16_t zero = zero_of(codec), all = codes_of(codec),
                   mask = vdupq_n_u8(static_cast<uint8_t>((1u << extra) - 1));
  const int8x16_t down = vdupq_n_s8(static_cast<int8_t>(-static_cast<int>(extra)));
  const VectorJoiner join_base(width);
  Bits bits = {residual, residual_bytes};
  Turn turn(codec);
  const uint8_t* const end = base + count / 8 * width;
  for (; base != end; line += kStep, base += 2 * width) {
    const uint8x16_t v = vandq_u8(vsubq_u8(vld1q_u8(line), zero), all),
                     upper = vshlq_u8(v, down);
    store_base<kNibbles>(upper, join_base, width, base, end);
    if (!kPairs) continue;
    const Sixteen& here = turn.next();
    const uint8x16_t ordered = vqtbl1q_u8(vandq_u8(v, mask), vld1q_u8(here.important));
    bits.put(join_pairs(ordered), static_cast<unsigned>(here.residuals) * extra);
  }
  for (; bits.left > 0; --bits.left, bits.waiting >>= 8) {
    *bits.to++ = static_cast<uint8_t>(bits.waiting);
  }
}

template <bool kNibbles, bool kPairs>
void unpack_line_as(const DqaCodec& codec, const uint8_t* base, const uint8_t* residual,
                    size_t residual_bytes, size_t count, uint8_t* line) {
  const unsigned width = codec.bits, extra = codec.extra_bits;
  const uint8x16_t zero = zero_of(codec), all = codes_of(codec), three = vdupq_n_u8(3);
  const int8x16_t up = vdupq_n_s8(static_cast<int8_t>(extra));
  const Splitter split_base(width, width);
  const size_t last = residual_bytes - 8;
  const uint8_t* const last_base = base + count / 8 * width - 16;
  size_t bit = 0;
  Turn turn(codec);
  const uint8_t* const end = line + count;
  for (; line != end; line += kStep, base += 2 * width) {
    uint8x16_t v;
    if (kNibbles) {
      const uint8x8_t bytes = vld1_u8(base);
      const uint8x8_t low = vand_u8(bytes, vdup_n_u8(15)), high = vshr_n_u8(bytes, 4);
      v = vzip1q_u8(vcombine_u8(low, low), vcombine_u8(high, high));
    } else {
      const uint8_t* const from = base < last_base ? base : last_base;
      v = split_base(vld1q_u8(from), static_cast<size_t>(base - from));
    }
    if (kPairs) {
      v = vshlq_u8(v, up);
      const Sixteen& here = turn.next();
      const uint64x2_t bits = vdupq_n_u64(load_bits(residual, last, bit));
      const uint8x16_t bytes =
          vqtbl1q_u8(vreinterpretq_u8_u64(bits), vld1q_u8(here.pair_byte));
      v = vorrq_u8(v, vandq_u8(vshlq_u8(bytes, vld1q_s8(here.pair_shift)), three));
      bit += here.residuals * extra;
    }
    vst1q_u8(line, vandq_u8(vaddq_u8(v, zero), all));
  }
}

// Whether lines of so many codes are packed and unpacked vector by vector: codes
// without residuals, and the usual ones of four bits and two.
bool takes_line(const DqaCodec& codec, size_t count, size_t residual_bytes) {
  const bool usual = codec.bits == 4 && codec.extra_bits == 2 && residual_bytes >= 8;
  return (usual || codec.extra_bits == 0) && count % kStep == 0 &&
         plane_bytes(count, codec.bits) >= 16;
}

bool pack_line(const DqaCodec& codec, const uint8_t* line, size_t count,
               uint8_t* strip) {
  const size_t residuals = plane_bytes(codec.residual_count(count), codec.extra_bits);
  if (!takes_line(codec, count, residuals)) return false;
  const bool nibbles = codec.bits == 4;
  const auto chosen = codec.extra_bits != 0 ? pack_line_as<true, true>
                      : nibbles             ? pack_line_as<true, false>
                                            : pack_line_as<false, false>;
  chosen(codec, line, count, strip, strip + plane_bytes(count, codec.bits), residuals);
  return true;
}

bool unpack_line(const DqaCodec& codec, const uint8_t* strip, size_t count,
                 uint8_t* line) {
  const size_t residuals = plane_bytes(codec.residual_count(count), codec.extra_bits);
  if (!takes_line(codec, count, residuals)) return false;
  const bool nibbles = codec.bits == 4;
  const auto chosen = codec.extra_bits != 0 ? unpack_line_as<true, true>
                      : nibbles             ? unpack_line_as<true, false>
                                            : unpack_line_as<false, false>;
  chosen(codec, strip, strip + plane_bytes(count, codec.bits), residuals, count, line);
  return true;
}

}  // namespace

const Kernels* neon_kernels() {
  static const Kernels kKernels = {DQA_NEON,
                                   {pack_all<Neon, true>, pack_sixteens},
                                   {unpack_all<Neon, true>, unpack_sixteens},
                                   scalar_kernels().encode,
                                   scalar_kernels().decode,
                                   true,
                                   pack_line,
                                   unpack_line};
  return &kKernels;
}

}  // namespace dqa

#else

namespace dqa {
const Kernels* neon_kernels() { return nullptr; }
}  // namespace dqa

#endif
