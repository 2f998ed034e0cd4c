// The path for x86-64 with AVX2 and BMI2. PEXT takes the base codes, or the residuals,
// out of eight codes at once, whatever n, m and the mask are; PDEP puts them back.
#include "codec/codec.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "codec/blocks.h"
#include "codec/groups.h"

// Only these functions may use the instructions, so that the library loads anywhere.
#define DQA_TARGET __attribute__((target("avx2,bmi2")))

namespace dqa {
namespace {

constexpr size_t kStep = 32;     // values in a round: four groups
constexpr size_t kAhead = 1024;  // values from a round to what it asks memory for
constexpr size_t kRoom = 64;     // bytes: the last rounds of a plane fit, and a store

// The end of a plane on its way: rounds store whole words, which would not fit there.
class LastBytes {
 public:
  // Rounds go on here instead of at `to`; returns the end of the room.
  DQA_TARGET const uint8_t* begin(uint8_t** to) {
    to_ = *to;
    *to = bytes_;
    return bytes_ + kRoom;
  }

  // Puts what was written where it belongs.
  DQA_TARGET void end(uint8_t** to) const {
    if (to_ == nullptr) return;
    const size_t size = static_cast<size_t>(*to - bytes_);
    std::memcpy(to_, bytes_, size);
    *to = to_ + size;
  }

 private:
  uint8_t* to_ = nullptr;
  uint8_t bytes_[kRoom];
};

// Eight values as int32 codes.
template <bool kSigned>
DQA_TARGET inline __m256i quantize8(const float* x, const float* inverse_scale,
                                    const float* low, const float* high) {
  __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(inverse_scale));
  // The maximum gives its second operand for a NaN.
  v = _mm256_max_ps(v, kSigned ? _mm256_loadu_ps(low) : _mm256_setzero_ps());
  v = _mm256_min_ps(v, _mm256_loadu_ps(high));
  return _mm256_cvtps_epi32(v);  // rounds half to even
}

// What quantizing reads, kept out of the codec: stores of bytes might alias it there.
struct Ranges {
  const float *inverse_scale, *low, *high;
};

// 32 values as codes of a byte each, in order.
template <bool kSigned>
DQA_TARGET inline __m256i quantize32(const Ranges& all, const float* x,
                                     size_t channel) {
  const float* const inverse_scale = all.inverse_scale + channel;
  const float* const low = all.low + channel;
  const float* const high = all.high + channel;
  const __m256i a = quantize8<kSigned>(x, inverse_scale, low, high);
  const __m256i b = quantize8<kSigned>(x + 8, inverse_scale + 8, low + 8, high + 8);
  const __m256i c = quantize8<kSigned>(x + 16, inverse_scale + 16, low + 16, high + 16);
  const __m256i d = quantize8<kSigned>(x + 24, inverse_scale + 24, low + 24, high + 24);
  const __m256i ab = _mm256_packs_epi32(a, b), cd = _mm256_packs_epi32(c, d);
  const __m256i mixed =
      kSigned ? _mm256_packs_epi16(ab, cd) : _mm256_packus_epi16(ab, cd);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(mixed, order);
}

// Appends residual bits to the plane; stores 8 bytes.
DQA_TARGET inline void append(uint64_t bits, unsigned count, uint8_t** next,
                              PackState* state) {
  state->waiting |= bits << state->fill;
  state->fill += count;
  store8(*next, state->waiting);
  *next += state->fill >> 3;
  state->waiting >>= state->fill & 56;
  state->fill &= 7;
}

// kNarrow: the residuals of a round fit one word.
template <bool kFloat, bool kSigned, bool kNarrow>
DQA_TARGET void pack(const DqaCodec& codec, const void* values, size_t count,
                     uint8_t* base, uint8_t* residual) {
  const size_t width = codec.bits, step = kStep % codec.channels;
  const size_t channels = codec.channels;
  const size_t residual_bytes =
      plane_bytes(codec.residual_count(count), codec.extra_bits);
  const uint8_t* const residual_end = residual + residual_bytes;
  const uint8_t *base_end = base + plane_bytes(count, codec.bits),
                *next_end = residual_end;
  uint8_t* next = residual;
  LastBytes last_base, last_residual;
  const Ranges ranges = {codec.inverse_scale.get(), codec.low.get(), codec.high.get()};
  const Phase* const phases = codec.phases.get();
  PackState state;
  // A round stores 8 bytes at a time: at most 3 n + 8 of base codes, and of residuals
  // 8 or 24. Without residuals these words are empty.
  while (count - state.done >= kStep) {
    if (static_cast<size_t>(base_end - base) < 3 * width + 8) {
      base_end = last_base.begin(&base);
    }
    if (next_end - next < (kNarrow ? 8 : 24)) next_end = last_residual.begin(&next);
    uint64_t codes[4];
    if (kFloat) {
      const float* x = static_cast<const float*>(values) + state.done;
      // The hardware stops at the end of a page; a tensor does not.
      _mm_prefetch(reinterpret_cast<const char*>(x + kAhead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(x + kAhead + 16), _MM_HINT_T0);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes),
                          quantize32<kSigned>(ranges, x, state.channel));
    } else {
      std::memcpy(codes, static_cast<const uint8_t*>(values) + state.done, kStep);
    }
    const Phase* const phase = phases + state.channel;
    const uint8_t* const bits = phase->residual_bits;
    uint64_t together = 0;
    for (unsigned g = 0; g < 4; ++g) {
      store8(base, _pext_u64(codes[g], phase[8 * g].base_mask));
      base += width;
      const uint64_t taken = _pext_u64(codes[g], phase[8 * g].residual_mask);
      if (kNarrow) {
        together |= g == 0 ? taken : taken << bits[g - 1];
      } else {
        append(taken, phase[8 * g].residual_bits[0], &next, &state);
      }
    }
    if (kNarrow) append(together, bits[3], &next, &state);
    state.done += kStep;
    state.channel = next_channel(state.channel, step, channels);
  }
  last_base.end(&base);
  last_residual.end(&next);
  const auto left = static_cast<size_t>(residual_end - next);
  pack_groups<Scalar, kFloat>(codec, values, count, base, next, left, state);
}

template <bool kFloat, bool kSigned, bool kNarrow>
DQA_TARGET void unpack(const DqaCodec& codec, const uint8_t* base,
                       const uint8_t* residual, size_t count, void* values) {
  const size_t width = codec.bits, step = kStep % codec.channels;
  const size_t channels = codec.channels;
  const size_t base_bytes = plane_bytes(count, codec.bits);
  const size_t residual_bytes =
      plane_bytes(codec.residual_count(count), codec.extra_bits);
  // The last rounds read copies of the planes' ends, with room behind.
  uint8_t last_base[kRoom], last_residual[kRoom];
  const uint8_t *at = base, *at_end = base + base_bytes;
  const uint8_t* from = residual;
  size_t from_bytes = residual_bytes, from_bit = 0, bits_before = 0;
  const Phase* const phases = codec.phases.get();
  const float* const scales = codec.scale.get();
  UnpackState state;
  // A round loads 8 bytes at a time: at most 3 n + 8 of base codes, and of residuals 8
  // or 24. Without residuals these words are not used.
  while (count - state.done >= kStep) {
    const auto base_left = static_cast<size_t>(at_end - at);
    if (base_left < 3 * width + 8) {
      std::memset(last_base, 0, kRoom);
      std::memcpy(last_base, at, base_left);
      at = last_base;
      at_end = last_base + kRoom;
    }
    const size_t residual_left = from_bytes - (from_bit >> 3);
    if (residual_left < (kNarrow ? 8 : 24)) {
      std::memset(last_residual, 0, kRoom);
      std::memcpy(last_residual, from + (from_bit >> 3), residual_left);
      bits_before = from_bit & ~size_t{7};
      from = last_residual;
      from_bytes = kRoom;
      from_bit &= 7;
    }
    const Phase* const phase = phases + state.channel;
    const float* const scale = scales + state.channel;
    uint64_t bits = load8(from + (from_bit >> 3)) >> (from_bit & 7);
    for (unsigned g = 0; g < 4; ++g) {
      const Phase& here = phase[8 * g];
      if (g > 0 && !kNarrow) {
        const size_t bit = from_bit + phase->residual_bits[g - 1];
        bits = load8(from + (bit >> 3)) >> (bit & 7);
      }
      const unsigned skipped = g > 0 && kNarrow ? phase->residual_bits[g - 1] : 0;
      const uint64_t codes = _pdep_u64(load8(at), here.base_mask) |
                             _pdep_u64(bits >> skipped, here.residual_mask);
      at += width;
      __m128i bytes = _mm_cvtsi64_si128(static_cast<long long>(codes));
      if (kSigned) {
        const __m128i zero = _mm_cvtsi64_si128(static_cast<long long>(here.zero));
        const __m128i all = _mm_cvtsi64_si128(static_cast<long long>(here.codes));
        bytes = _mm_sub_epi8(_mm_and_si128(_mm_add_epi8(bytes, zero), all), zero);
      }
      if (kFloat) {
        const __m256i wide =
            kSigned ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
        _mm256_storeu_ps(
            static_cast<float*>(values) + state.done + 8 * g,
            _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_loadu_ps(scale + 8 * g)));
      } else {
        _mm_storel_epi64(reinterpret_cast<__m128i*>(static_cast<uint8_t*>(values) +
                                                    state.done + 8 * g),
                         bytes);
      }
    }
    from_bit += phase->residual_bits[3];
    state.done += kStep;
    state.channel = next_channel(state.channel, step, channels);
  }
  state.residual_bit = bits_before + from_bit;
  base += state.done / 8 * width;
  unpack_groups<Scalar, kFloat>(codec, base, residual, residual_bytes, count, values,
                                state);
}

template <bool kFloat>
void pack_any(const DqaCodec& codec, const void* values, size_t count, uint8_t* base,
              uint8_t* residual) {
  const auto chosen =
      codec.is_signed
          ? (codec.narrow ? pack<kFloat, true, true> : pack<kFloat, true, false>)
          : (codec.narrow ? pack<kFloat, false, true> : pack<kFloat, false, false>);
  chosen(codec, values, count, base, residual);
}

template <bool kFloat>
void unpack_any(const DqaCodec& codec, const uint8_t* base, const uint8_t* residual,
                size_t count, void* values) {
  const auto chosen =
      codec.is_signed
          ? (codec.narrow ? unpack<kFloat, true, true> : unpack<kFloat, true, false>)
          : (codec.narrow ? unpack<kFloat, false, true> : unpack<kFloat, false, false>);
  chosen(codec, base, residual, count, values);
}

// The same code as the scalar path's, with BMI2's shifts.
DQA_TARGET size_t encode(const HuffmanCode& code, const uint8_t* plane, size_t count,
                         uint8_t* out, uint8_t* scratch) {
  return encode_section(code, plane, count, out, scratch);
}

DQA_TARGET DqaStatus decode(const HuffmanCode& code, const uint8_t* section,
                            size_t size, size_t count, uint8_t* plane, size_t* used,
                            DqaError* error) {
  return decode_section(code, section, size, count, plane, used, error);
}

}  // namespace

const Kernels* avx2_kernels() {
  static constexpr Kernels kKernels = {DQA_AVX2,
                                       {pack_any<true>, pack_any<false>},
                                       {unpack_any<true>, unpack_any<false>},
                                       encode,
                                       decode};
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? &kKernels
                                                                          : nullptr;
}

}  // namespace dqa

#else

namespace dqa {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace dqa

#endif
