// The path for x86-64 with AVX2.
#include "runtime/kernels/avx2.h"
#include "runtime/kernels/input_rows.h"
#include "runtime/kernels/tiles.h"
#include "runtime/kernels/winograd_rows.h"

#if defined(__x86_64__)

#include <cstring>

namespace dqa {
namespace {

INLINE_AVX2 __m128i load128(const void* at) {
  return _mm_loadu_si128(static_cast<const __m128i*>(at));
}

INLINE_AVX2 __m256i four_bytes(const uint8_t* at) {
  int32_t value;
  std::memcpy(&value, at, sizeof value);
  return _mm256_set1_epi32(value);
}

// Products of unsigned by signed bytes, pairs added in 16 bits. A span of groups
// fits before the sums must move to 32 bits: no saturation is possible.
template <unsigned kPixels>
TARGET_AVX2 void conv_tile(const ConvRow& row, int32_t (*sums)[kBlock]) {
  const int8_t* weights = row.weights;
  const uint32_t* span = row.spans;
  __m256i total[kPixels][2], part[kPixels][2];
  for (unsigned p = 0; p < kPixels; ++p) {
    total[p][0] = load(row.start);
    total[p][1] = load(row.start + 8);
    part[p][0] = part[p][1] = _mm256_setzero_si256();
  }
  const __m256i ones = _mm256_set1_epi16(1);
  const size_t step = row.pixel_bytes;
  size_t left = *span;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      for (size_t todo = row.run_groups; todo > 0;) {
        const size_t count = todo < left ? todo : left;
        for (size_t g = 0; g < count; ++g) {
          const __m256i w0 = load(weights), w1 = load(weights + 32);
          for (unsigned p = 0; p < kPixels; ++p) {
            const __m256i x = four_bytes(at + p * step);
            part[p][0] = _mm256_add_epi16(part[p][0], _mm256_maddubs_epi16(x, w0));
            part[p][1] = _mm256_add_epi16(part[p][1], _mm256_maddubs_epi16(x, w1));
          }
          at += kGroup;
          weights += kBlock * kGroup;
        }
        todo -= count;
        left -= count;
        if (left != 0) continue;
        left = *++span;
        for (unsigned p = 0; p < kPixels; ++p) {
          for (unsigned h = 0; h < 2; ++h) {
            total[p][h] =
                _mm256_add_epi32(total[p][h], _mm256_madd_epi16(part[p][h], ones));
            part[p][h] = _mm256_setzero_si256();
          }
        }
      }
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned h = 0; h < 2; ++h) {
      store(sums[p] + 8 * h,
            _mm256_add_epi32(total[p][h], _mm256_madd_epi16(part[p][h], ones)));
    }
  }
}

// Groups from which on a span is worth that its sums go to memory and back.
constexpr size_t kLongSpan = 3;

// The same where spans are shorter: each group moves to 32 bits at once, and the
// sums stay in registers.
template <unsigned kPixels>
TARGET_AVX2 void conv_singly(const ConvRow& row, int32_t (*sums)[kBlock]) {
  const int8_t* weights = row.weights;
  __m256i total[kPixels][2];
  for (unsigned p = 0; p < kPixels; ++p) {
    total[p][0] = load(row.start);
    total[p][1] = load(row.start + 8);
  }
  const __m256i ones = _mm256_set1_epi16(1);
  const size_t step = row.pixel_bytes;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      for (size_t g = 0; g < row.run_groups; ++g) {
        const __m256i w0 = load(weights), w1 = load(weights + 32);
        for (unsigned p = 0; p < kPixels; ++p) {
          const __m256i x = four_bytes(at + p * step);
          total[p][0] = _mm256_add_epi32(
              total[p][0], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w0), ones));
          total[p][1] = _mm256_add_epi32(
              total[p][1], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w1), ones));
        }
        at += kGroup;
        weights += kBlock * kGroup;
      }
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    store(sums[p], total[p][0]);
    store(sums[p] + 8, total[p][1]);
  }
}

// Four inputs of a pixel as 16-bit numbers, four times over.
template <bool kWide>
INLINE_AVX2 __m256i four_words(const uint8_t* at) {
  if (kWide) {
    int64_t value;
    std::memcpy(&value, at, sizeof value);
    return _mm256_set1_epi64x(value);
  }
  int32_t value;
  std::memcpy(&value, at, sizeof value);
  return _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(value)));
}

// Products of 16-bit numbers, pairs added in 32 bits: for codes of 8 bits and wide
// ones.
template <unsigned kPixels, bool kWide>
TARGET_AVX2 void conv_exact(const ConvRow& row, int32_t (*sums)[kBlock]) {
  __m256i total[kPixels][4];
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned q = 0; q < 4; ++q) total[p][q] = _mm256_setzero_si256();
  }
  constexpr size_t kStep = kGroup * (kWide ? 2 : 1);
  const int8_t* weights = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      for (size_t g = 0; g < row.run_groups; ++g) {
        __m256i x[kPixels];
        for (unsigned p = 0; p < kPixels; ++p) {
          x[p] = four_words<kWide>(at + p * row.pixel_bytes);
        }
        for (unsigned q = 0; q < 4; ++q) {
          const __m256i w = _mm256_cvtepi8_epi16(load128(weights + 16 * q));
          for (unsigned p = 0; p < kPixels; ++p) {
            total[p][q] = _mm256_add_epi32(total[p][q], _mm256_madd_epi16(x[p], w));
          }
        }
        at += kStep;
        weights += kBlock * kGroup;
      }
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned h = 0; h < 2; ++h) {
      const __m256i mixed = _mm256_hadd_epi32(total[p][2 * h], total[p][2 * h + 1]);
      store(sums[p] + 8 * h, _mm256_add_epi32(load(row.start + 8 * h),
                                              _mm256_permute4x64_epi64(mixed, 0xd8)));
    }
  }
}

// Adds 16 sums of 16 bits to sums of 32.
INLINE_AVX2 void widen_sums(__m256i part, __m256i* total) {
  total[0] =
      _mm256_add_epi32(total[0], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(part)));
  total[1] = _mm256_add_epi32(total[1],
                              _mm256_cvtepi16_epi32(_mm256_extracti128_si256(part, 1)));
}

// Neighbours side by side, so that a tap's weights are widened once.
template <unsigned kPixels>
TARGET_AVX2 void depthwise_tile(const DepthwiseRow& row, int32_t (*sums)[kBlock]) {
  const int8_t* weights = row.weights;
  __m256i total[kPixels][2], part[kPixels];
  for (unsigned p = 0; p < kPixels; ++p) {
    total[p][0] = load(row.start);
    total[p][1] = load(row.start + 8);
    part[p] = _mm256_setzero_si256();
  }
  uint32_t left = row.interval;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    const uint8_t* at = row.rows[y];
    for (unsigned x = 0; x < row.taps_x; ++x) {
      const __m256i factors = _mm256_cvtepi8_epi16(load128(weights));
      for (unsigned p = 0; p < kPixels; ++p) {
        const __m256i codes = _mm256_cvtepu8_epi16(load128(at + p * row.pixel_bytes));
        part[p] = _mm256_add_epi16(part[p], _mm256_mullo_epi16(codes, factors));
      }
      at += row.tap_bytes;
      weights += row.weight_step;
      if (--left != 0) continue;
      left = row.interval;
      for (unsigned p = 0; p < kPixels; ++p) {
        widen_sums(part[p], total[p]);
        part[p] = _mm256_setzero_si256();
      }
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    widen_sums(part[p], total[p]);
    store(sums[p], total[p][0]);
    store(sums[p] + 8, total[p][1]);
  }
}

// Eight values as the operations that `Op` lists.
INLINE_AVX2 __m256 value8(const Epilogue& e, const int32_t* sums, unsigned pixel,
                          unsigned at) {
  __m256 v = _mm256_loadu_ps(e.bias + at);
  if (e.multiplier != nullptr) {
    __m256 sum = _mm256_cvtepi32_ps(load(sums + at));
    if (e.averages) sum = _mm256_mul_ps(sum, _mm256_set1_ps(e.share));
    v = _mm256_add_ps(_mm256_mul_ps(sum, _mm256_loadu_ps(e.multiplier + at)), v);
  }
  for (unsigned k = 0; k < e.addends; ++k) {
    const Addend& a = e.addend[k];
    const uint8_t* const codes = a.codes + pixel * a.pixel_bytes;
    const __m256i code = a.wide ? _mm256_cvtepi16_epi32(load128(codes + 2 * at))
                                : _mm256_cvtepu8_epi32(_mm_loadl_epi64(
                                      reinterpret_cast<const __m128i*>(codes + at)));
    const __m256i centred = _mm256_sub_epi32(code, _mm256_set1_epi32(a.zero));
    v = _mm256_add_ps(
        v, _mm256_mul_ps(_mm256_cvtepi32_ps(centred), _mm256_loadu_ps(a.scale + at)));
  }
  v = _mm256_max_ps(v, _mm256_loadu_ps(e.low + at));
  return _mm256_min_ps(v, _mm256_loadu_ps(e.high + at));
}

// The usual case, a convolution before a quantizer, with its arrays in registers.
struct Codes {
  __m256 multiplier[2], bias[2], high[2];
  // In the order in which two halves are packed.
  __m256i low, power, zero;
};

// 16 codes of a pixel as words.
INLINE_AVX2 __m256i codes16(const Codes& c, const int32_t* sums) {
  const __m256i halves[2] = {
      rounded(load(sums), c.multiplier[0], c.bias[0], c.high[0]),
      rounded(load(sums + 8), c.multiplier[1], c.bias[1], c.high[1])};
  const __m256i codes =
      _mm256_max_epi16(_mm256_packs_epi32(halves[0], halves[1]), c.low);
  return _mm256_add_epi16(_mm256_mullo_epi16(codes, c.power), c.zero);
}

TARGET_AVX2 void requantize_codes(const Epilogue& e, const int32_t (*sums)[kBlock],
                                  unsigned pixels) {
  Codes c;
  for (unsigned h = 0; h < 2; ++h) {
    c.multiplier[h] = _mm256_loadu_ps(e.multiplier + 8 * h);
    c.bias[h] = _mm256_loadu_ps(e.bias + 8 * h);
    c.high[h] = _mm256_loadu_ps(e.high + 8 * h);
  }
  c.low = _mm256_packs_epi32(lowest(e.low, e.high), lowest(e.low + 8, e.high + 8));
  c.power = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_loadu_ps(e.power)),
                               _mm256_cvtps_epi32(_mm256_loadu_ps(e.power + 8)));
  c.zero = _mm256_set1_epi16(static_cast<int16_t>(e.zero));
  uint8_t* out = e.out;
  const size_t step = e.out_bytes;
  for (unsigned p = 0; p < pixels; p += 2, out += 2 * step) {
    const bool pair = p + 1 < pixels;
    const __m256i first = codes16(c, sums[p]),
                  second = pair ? codes16(c, sums[p + 1]) : first;
    // Of each pixel four channels, and those eight further on; then those between.
    const __m256i bytes = _mm256_packus_epi16(first, second);
    const __m128i even = _mm256_castsi256_si128(bytes),
                  odd = _mm256_extracti128_si256(bytes, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi32(even, odd));
    if (!pair) break;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + step),
                     _mm_unpackhi_epi32(even, odd));
  }
}

TARGET_AVX2 void requantize(const Epilogue& e, const int32_t (*sums)[kBlock],
                            unsigned pixels) {
  if (e.type == Type::kCodes && e.multiplier != nullptr && e.addends == 0 &&
      !e.averages && e.channels == kBlock) {
    requantize_codes(e, sums, pixels);
    return;
  }
  const bool half = e.channels == kBlock / 2;
  if (e.addends > 0 && !half && e.channels != kBlock) {  // as in `depthwise`
    scalar_runtime_kernels().requantize(e, sums, pixels);
    return;
  }
  for (unsigned p = 0; p < pixels; ++p) {
    const __m256 v0 = value8(e, sums[p], p, 0),
                 v1 = half ? v0 : value8(e, sums[p], p, 8);
    uint8_t* const out = e.out + p * e.out_bytes;
    if (e.type == Type::kFloat) {
      float values[kBlock];
      float* const to = e.channels == kBlock ? reinterpret_cast<float*>(out) : values;
      _mm256_storeu_ps(to, v0);
      _mm256_storeu_ps(to + 8, v1);
      if (e.channels != kBlock) std::memcpy(out, values, e.channels * sizeof(float));
      continue;
    }
    if (e.type == Type::kWide) {
      const __m256i mixed =
          _mm256_packs_epi32(_mm256_cvtps_epi32(v0), _mm256_cvtps_epi32(v1));
      const __m256i codes = _mm256_permute4x64_epi64(mixed, 0xd8);
      if (e.channels == kBlock) {
        store(out, codes);
      } else {
        int16_t values[kBlock];
        store(values, codes);
        std::memcpy(out, values, e.channels * sizeof(int16_t));
      }
      continue;
    }
    constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    const __m256 q0 = _mm256_mul_ps(_mm256_round_ps(v0, kNearestEven),
                                    _mm256_loadu_ps(e.power)),
                 q1 = _mm256_mul_ps(_mm256_round_ps(v1, kNearestEven),
                                    _mm256_loadu_ps(e.power + 8));
    const __m256i zero = _mm256_set1_epi32(e.zero);
    const __m256i words =
        _mm256_packs_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(q0), zero),
                           _mm256_add_epi32(_mm256_cvtps_epi32(q1), zero));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i codes = _mm_packus_epi16(_mm256_castsi256_si128(ordered),
                                           _mm256_extracti128_si256(ordered, 1));
    if (e.channels == kBlock) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), codes);
    } else {
      uint8_t values[kBlock];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(values), codes);
      std::memcpy(out, values, e.channels);
    }
  }
}

TARGET_AVX2 void widen(const uint8_t* factors, size_t channels, size_t pixels,
                       uint8_t zero, const uint8_t* stored, uint8_t* line,
                       size_t pixel_bytes) {
  const __m256i low_byte = _mm256_set1_epi16(0xff);
  const __m128i zeros = _mm_set1_epi8(static_cast<char>(zero));
  for (size_t p = 0; p < pixels; ++p) {
    size_t c = 0;
    for (; c + 16 <= channels; c += 16) {
      const __m256i product = _mm256_and_si256(
          low_byte, _mm256_mullo_epi16(_mm256_cvtepu8_epi16(load128(stored + c)),
                                       _mm256_cvtepu8_epi16(load128(factors + c))));
      const __m128i codes = _mm_packus_epi16(_mm256_castsi256_si128(product),
                                             _mm256_extracti128_si256(product, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(line + c),
                       _mm_add_epi8(codes, zeros));
    }
    for (; c < channels; ++c) {
      line[c] = static_cast<uint8_t>(stored[c] * factors[c] + zero);
    }
    stored += channels;
    line += pixel_bytes;
  }
}

TARGET_AVX2 void narrow(const int16_t* factors, size_t channels, size_t pixels,
                        uint8_t zero, const uint8_t* line, size_t pixel_bytes,
                        uint8_t* stored) {
  const __m256i zeros = _mm256_set1_epi16(zero), low_byte = _mm256_set1_epi16(0xff);
  for (size_t p = 0; p < pixels; ++p) {
    size_t c = 0;
    for (; c + 16 <= channels; c += 16) {
      const __m256i code =
          _mm256_sub_epi16(_mm256_cvtepu8_epi16(load128(line + c)), zeros);
      const __m256i base = _mm256_and_si256(
          low_byte, _mm256_srai_epi16(_mm256_mullo_epi16(code, load(factors + c)), 8));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(stored + c),
                       _mm_packus_epi16(_mm256_castsi256_si128(base),
                                        _mm256_extracti128_si256(base, 1)));
    }
    for (; c < channels; ++c) {
      const int code = line[c] - zero;
      stored[c] = static_cast<uint8_t>(static_cast<int16_t>(code * factors[c]) >> 8);
    }
    stored += channels;
    line += pixel_bytes;
  }
}

INLINE_AVX2 __m256i repeat(int32_t value) {
  return _mm256_set1_epi16(static_cast<int16_t>(value));
}

// Sums stay below 2^15: factors are at most 4 here, see `Blend`.
TARGET_AVX2 void blend(const Blend& b, const uint8_t* const* corners, size_t channels,
                       uint8_t* out) {
  const __m256i half = repeat(b.half);
  const __m128i shift = _mm_cvtsi32_si128(b.shift);
  size_t c = 0;
  for (; b.narrow && c + 16 <= channels; c += 16) {
    __m256i sum = half;
    for (unsigned i = 0; i < 4; ++i) {
      const __m256i codes = _mm256_cvtepu8_epi16(load128(corners[i] + c));
      sum = _mm256_add_epi16(sum, _mm256_mullo_epi16(codes, repeat(b.weight[i])));
    }
    sum = _mm256_srl_epi16(sum, shift);
    const __m256i codes = _mm256_packus_epi16(sum, sum);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + c),
                     _mm_unpacklo_epi64(_mm256_castsi256_si128(codes),
                                        _mm256_extracti128_si256(codes, 1)));
  }
  const uint8_t* const rest[4] = {corners[0] + c, corners[1] + c, corners[2] + c,
                                  corners[3] + c};
  scalar_runtime_kernels().blend(b, rest, channels - c, out + c * (b.wide ? 2 : 1));
}

void conv(const ConvRow& row, Epilogue* epilogue) {
  static constexpr TileKernel<ConvRow> kFast[] = {conv_tile<1>, conv_tile<2>,
                                                  conv_tile<3>, conv_tile<4>,
                                                  conv_tile<5>, conv_tile<6>};
  static constexpr TileKernel<ConvRow> kSingly[] = {conv_singly<1>, conv_singly<2>,
                                                    conv_singly<3>, conv_singly<4>,
                                                    conv_singly<5>, conv_singly<6>};
  // Their sums take twice the registers.
  static constexpr TileKernel<ConvRow> kExact[] = {
      conv_exact<1, false>, conv_exact<2, false>, conv_exact<3, false>};
  static constexpr TileKernel<ConvRow> kWide[] = {
      conv_exact<1, true>, conv_exact<2, true>, conv_exact<3, true>};
  if (row.wide) return run_tiles(row, kWide, 3, requantize, epilogue);
  if (row.spans == nullptr) return run_tiles(row, kExact, 3, requantize, epilogue);
  const size_t groups = row.taps_y * row.runs * row.run_groups;
  if (groups < kLongSpan * row.span_count) {
    return run_tiles(row, kSingly, 6, requantize, epilogue);
  }
  run_tiles(row, kFast, 6, requantize, epilogue);
}

void sums(const ConvRow& row, int32_t* out) {
  static constexpr TileKernel<ConvRow> kTiles[] = {
      conv_exact<1, false>, conv_exact<2, false>, conv_exact<3, false>};
  sum_tiles(row, kTiles, 3, out);
}

TARGET_AVX2 void transform_inputs(const TileInputs& tiles) {
  transform_tile_inputs(tiles);
}

TARGET_AVX2 void transform_sums(const int32_t* sums, size_t position, size_t tiles,
                                int32_t (*out)[kTile][kBlock]) {
  transform_tile_sums(sums, position, tiles, out);
}

void depthwise(const DepthwiseRow& row, Epilogue* epilogue) {
  // Nothing is read after the last channel: another thread may be writing there.
  if (row.wide || epilogue->channels != kBlock) {
    scalar_runtime_kernels().depthwise(row, epilogue);
    return;
  }
  static constexpr TileKernel<DepthwiseRow> kTiles[] = {
      depthwise_tile<1>, depthwise_tile<2>, depthwise_tile<3>,
      depthwise_tile<4>, depthwise_tile<5>, depthwise_tile<6>};
  run_tiles(row, kTiles, 6, requantize, epilogue);
}

TARGET_AVX2 int32_t measure(const InputRow& row) { return measure_row(row); }

TARGET_AVX2 void quantize(const InputRow& row, float inverse_scale, float limit,
                          int16_t* codes) {
  quantize_row(row, inverse_scale, limit, codes);
}

}  // namespace

const RuntimeKernels* avx2_runtime_kernels() {
  static constexpr RuntimeKernels kKernels = [] {
    RuntimeKernels kernels = {
        DQA_AVX2, 1,         conv,           sums,    transform_inputs, transform_sums,
        128,      depthwise, avx2_depthwise, 129,     requantize,       widen,
        narrow,   blend,     measure,        quantize};
    kernels.conv_wants_spans = true;
    return kernels;
  }();
  return __builtin_cpu_supports("avx2") ? &kKernels : nullptr;
}

}  // namespace dqa

#else

namespace dqa {
const RuntimeKernels* avx2_runtime_kernels() { return nullptr; }
}  // namespace dqa

#endif
