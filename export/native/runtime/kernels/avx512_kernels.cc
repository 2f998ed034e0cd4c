// The path for x86-64 with AVX-512 and its dot products (VNNI): sums stay in registers
// until they are codes.
#include "runtime/kernels/avx512.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/tiles.h"
#include "runtime/kernels/winograd_rows.h"

#if defined(__x86_64__)

#include <cstring>

// gcc keeps arrays in registers only if it unrolls every loop over them early.
#if defined(__GNUC__) && !defined(__clang__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

namespace dqa {
namespace {

INLINE_AVX512 __m512i four_bytes(const uint8_t* at) {
  int32_t value;
  std::memcpy(&value, at, sizeof value);
  return _mm512_set1_epi32(value);
}

INLINE_AVX512 __mmask16 first16(size_t count) {
  return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xffffu);
}

// Sums of 16 channels of a pixel as values; nothing is read after the last channel:
// another thread may be writing there.
INLINE_AVX512 __m512 value16(const Epilogue& e, __m512i sum, unsigned pixel, size_t at,
                             __mmask16 mask) {
  __m512 v = _mm512_loadu_ps(e.bias + at);
  if (e.multiplier != nullptr) {
    __m512 s = _mm512_cvtepi32_ps(sum);
    if (e.averages) s = _mm512_mul_ps(s, _mm512_set1_ps(e.share));
    v = _mm512_add_ps(_mm512_mul_ps(s, _mm512_loadu_ps(e.multiplier + at)), v);
  }
  for (unsigned k = 0; k < e.addends; ++k) {
    const Addend& a = e.addend[k];
    const uint8_t* const codes = a.codes + pixel * a.pixel_bytes;
    const __m512i code =
        a.wide ? _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, codes + 2 * at))
               : _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, codes + at));
    const __m512 centred =
        _mm512_cvtepi32_ps(_mm512_sub_epi32(code, _mm512_set1_epi32(a.zero)));
    v = _mm512_add_ps(v, _mm512_mul_ps(centred, _mm512_loadu_ps(a.scale + at)));
  }
  return _mm512_min_ps(_mm512_max_ps(v, _mm512_loadu_ps(e.low + at)),
                       _mm512_loadu_ps(e.high + at));
}

INLINE_AVX512 void requantize_block(const Epilogue& e, __m512i sum, unsigned pixel,
                                    unsigned block) {
  const size_t at = block * kBlock;
  const __mmask16 mask = first16(e.channels - at);
  const __m512 v = value16(e, sum, pixel, at, mask);
  uint8_t* const out = e.out + pixel * e.out_bytes;
  if (e.type == Type::kFloat) {
    _mm512_mask_storeu_ps(out + 4 * at, mask, v);
    return;
  }
  const __m512i code = _mm512_cvtps_epi32(v);
  if (e.type == Type::kWide) {
    _mm256_mask_storeu_epi16(out + 2 * at, mask, _mm512_cvtsepi32_epi16(code));
    return;
  }
  const __m512i shifted =
      _mm512_add_epi32(_mm512_sllv_epi32(code, shifts(_mm512_loadu_ps(e.power + at))),
                       _mm512_set1_epi32(e.zero));
  _mm_mask_storeu_epi8(out + at, mask, _mm512_cvtepi32_epi8(shifted));
}

// Bytes to four spans of 16 from four packed registers, lane by lane.
INLINE_AVX512 __m512i unlace(__m512i bytes) {
  const __m512i order =
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes);
}

// Codes, with at most one addend of codes. Arrays are loaded once for all pixels, and
// the lower bound is kept on 16-bit codes: rounding keeps the order of values. (NaN and
// what is below int32 become the lowest code there is.)
template <unsigned kPixels, unsigned kCount, bool kAdds>
INLINE_AVX512 void requantize_codes(const Epilogue& e,
                                    const __m512i (&sums)[kPixels][kCount]) {
  constexpr unsigned kVectors = kPixels * kCount;
  __m512 multiplier[kCount], bias[kCount], high[kCount], scale[kCount];
  __m512i lows[2], powers[2];
  __mmask16 masks[kCount];
  UNROLL
  for (unsigned b = 0; b < kCount; ++b) {
    const size_t at = b * kBlock;
    multiplier[b] = _mm512_loadu_ps(e.multiplier + at);
    bias[b] = _mm512_loadu_ps(e.bias + at);
    high[b] = _mm512_loadu_ps(e.high + at);
    masks[b] = first16(e.channels - at);
    if (kAdds) scale[b] = _mm512_loadu_ps(e.addend[0].scale + at);
    UNROLL
    for (unsigned i = b; i < 2; ++i) {
      lows[i] = lowest(e.low + at, e.high + at);
      powers[i] = shifts(_mm512_loadu_ps(e.power + at));
    }
  }
  const __m512i low = _mm512_packs_epi32(lows[0], lows[1]);
  const __m512i shift = _mm512_packs_epi32(powers[0], powers[1]);
  const __m512i zero = _mm512_set1_epi16(static_cast<int16_t>(e.zero));
  const Addend addend = e.addend[0];
  const __m512i addend_zero = _mm512_set1_epi32(addend.zero);
  uint8_t* out = e.out;
  const size_t out_bytes = e.out_bytes;
  const __mmask32 pair_mask =
      masks[0] | static_cast<__mmask32>(kCount > 1 ? masks[kCount - 1] : 0) << 16;
  UNROLL
  for (unsigned first = 0; first < kVectors; first += 4) {
    __m512i codes[4];
    UNROLL
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned p = (first + i) / kCount, b = (first + i) % kCount;
      if (p >= kPixels) {
        codes[i] = _mm512_setzero_si512();
        continue;
      }
      __m512 v = _mm512_add_ps(
          _mm512_mul_ps(_mm512_cvtepi32_ps(sums[p][b]), multiplier[b]), bias[b]);
      if (kAdds) {
        const __m512i code = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(
            masks[b], addend.codes + p * addend.pixel_bytes + b * kBlock));
        const __m512 centred = _mm512_cvtepi32_ps(_mm512_sub_epi32(code, addend_zero));
        v = _mm512_add_ps(v, _mm512_mul_ps(centred, scale[b]));
      }
      codes[i] = _mm512_cvtps_epi32(_mm512_min_ps(high[b], v));
    }
    __m512i words[2];
    UNROLL
    for (unsigned i = 0; i < 2; ++i) {
      const __m512i clipped =
          _mm512_max_epi16(_mm512_packs_epi32(codes[2 * i], codes[2 * i + 1]), low);
      words[i] = _mm512_add_epi16(_mm512_sllv_epi16(clipped, shift), zero);
    }
    const __m512i bytes = unlace(_mm512_packus_epi16(words[0], words[1]));
    if (kCount == 2) {
      _mm256_mask_storeu_epi8(out, pair_mask, _mm512_castsi512_si256(bytes));
      if (first + 2 < kVectors) {
        _mm256_mask_storeu_epi8(out + out_bytes, pair_mask,
                                _mm512_extracti64x4_epi64(bytes, 1));
      }
      out += 2 * out_bytes;
    } else {
      _mm_mask_storeu_epi8(out, masks[0], _mm512_castsi512_si128(bytes));
      if (first + 1 < kVectors) {
        _mm_mask_storeu_epi8(out + out_bytes, masks[0],
                             _mm512_extracti32x4_epi32(bytes, 1));
      }
      if (first + 2 < kVectors) {
        _mm_mask_storeu_epi8(out + 2 * out_bytes, masks[0],
                             _mm512_extracti32x4_epi32(bytes, 2));
      }
      if (first + 3 < kVectors) {
        _mm_mask_storeu_epi8(out + 3 * out_bytes, masks[0],
                             _mm512_extracti32x4_epi32(bytes, 3));
      }
      out += 4 * out_bytes;
    }
  }
}

template <unsigned kPixels, unsigned kCount>
INLINE_AVX512 void requantize_tile(const Epilogue& e,
                                   const __m512i (&sums)[kPixels][kCount]) {
  if (e.type == Type::kCodes && e.addends == 0) {
    requantize_codes<kPixels, kCount, false>(e, sums);
  } else if (e.type == Type::kCodes && e.addends == 1 && !e.addend[0].wide) {
    requantize_codes<kPixels, kCount, true>(e, sums);
  } else {
    UNROLL
    for (unsigned p = 0; p < kPixels; ++p) {
      UNROLL
      for (unsigned b = 0; b < kCount; ++b) requantize_block(e, sums[p][b], p, b);
    }
  }
}

template <unsigned kPixels, unsigned kCount>
INLINE_AVX512 void multiply_tile(const ConvRow& row, __m512i (&sums)[kPixels][kCount]) {
  UNROLL
  for (unsigned b = 0; b < kCount; ++b) {
    UNROLL
    for (unsigned p = 0; p < kPixels; ++p) sums[p][b] = load(row.start + b * kBlock);
  }
  const int8_t* weights = row.weights;
  const size_t step = row.pixel_bytes;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      const int8_t* const end = weights + row.run_groups * kBlock * kGroup;
      for (; weights != end; weights += kBlock * kGroup, at += kGroup) {
        __m512i w[kCount];
        UNROLL
        for (unsigned b = 0; b < kCount; ++b)
          w[b] = load(weights + b * row.block_bytes);
        const uint8_t* const far = at + 4 * step;
        UNROLL
        for (unsigned p = 0; p < kPixels; ++p) {
          const __m512i x = four_bytes(p < 4 ? at + p * step : far + (p - 4) * step);
          UNROLL
          for (unsigned b = 0; b < kCount; ++b) {
            sums[p][b] = _mm512_dpbusd_epi32(sums[p][b], x, w[b]);
          }
        }
      }
    }
  }
}

template <unsigned kPixels, unsigned kCount>
TARGET_AVX512 void conv_tile(const ConvRow& row, const Epilogue& e) {
  __m512i sums[kPixels][kCount];
  multiply_tile(row, sums);
  requantize_tile<kPixels, kCount>(e, sums);
}

template <unsigned kPixels>
TARGET_AVX512 void sums_tile(const ConvRow& row, int32_t (*out)[kBlock]) {
  __m512i sums[kPixels][1];
  multiply_tile(row, sums);
  UNROLL
  for (unsigned p = 0; p < kPixels; ++p) _mm512_storeu_si512(out[p], sums[p][0]);
}

// The first two of four neighbouring weights, or the last two, as 16 bits.
INLINE_AVX512 __m512i half_weights(__m512i weights, int first) {
  const __m512i order = _mm512_add_epi8(
      _mm512_broadcast_i32x4(_mm_setr_epi8(-128, 0, -128, 1, -128, 4, -128, 5, -128, 8,
                                           -128, 9, -128, 12, -128, 13)),
      _mm512_set1_epi16(static_cast<int16_t>(first << 8)));
  return _mm512_srai_epi16(_mm512_shuffle_epi8(weights, order), 8);
}

// Codes of 16 bits.
template <unsigned kPixels, unsigned kCount>
TARGET_AVX512 void conv_wide_tile(const ConvRow& row, const Epilogue& e) {
  __m512i sums[kPixels][kCount];
  UNROLL
  for (unsigned b = 0; b < kCount; ++b) {
    UNROLL
    for (unsigned p = 0; p < kPixels; ++p) sums[p][b] = load(row.start + b * kBlock);
  }
  const int8_t* weights = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      const int8_t* const end = weights + row.run_groups * kBlock * kGroup;
      for (; weights != end; weights += kBlock * kGroup, at += 2 * kGroup) {
        for (int first = 0; first < 4; first += 2) {
          __m512i w[kCount];
          UNROLL
          for (unsigned b = 0; b < kCount; ++b) {
            w[b] = half_weights(load(weights + b * row.block_bytes), first);
          }
          UNROLL
          for (unsigned p = 0; p < kPixels; ++p) {
            const __m512i x = four_bytes(at + p * row.pixel_bytes + 2 * first);
            UNROLL
            for (unsigned b = 0; b < kCount; ++b) {
              sums[p][b] = _mm512_dpwssd_epi32(sums[p][b], x, w[b]);
            }
          }
        }
      }
    }
  }
  requantize_tile<kPixels, kCount>(e, sums);
}

using Tile = void (*)(const ConvRow&, const Epilogue&);

constexpr Tile kTiles[2][8] = {
    {conv_tile<1, 1>, conv_tile<2, 1>, conv_tile<3, 1>, conv_tile<4, 1>,
     conv_tile<5, 1>, conv_tile<6, 1>, conv_tile<7, 1>, conv_tile<8, 1>},
    {conv_tile<1, 2>, conv_tile<2, 2>, conv_tile<3, 2>, conv_tile<4, 2>,
     conv_tile<5, 2>, conv_tile<6, 2>, conv_tile<7, 2>, conv_tile<8, 2>}};
constexpr Tile kWideTiles[2][8] = {
    {conv_wide_tile<1, 1>, conv_wide_tile<2, 1>, conv_wide_tile<3, 1>,
     conv_wide_tile<4, 1>, conv_wide_tile<5, 1>, conv_wide_tile<6, 1>,
     conv_wide_tile<7, 1>, conv_wide_tile<8, 1>},
    {conv_wide_tile<1, 2>, conv_wide_tile<2, 2>, conv_wide_tile<3, 2>,
     conv_wide_tile<4, 2>, conv_wide_tile<5, 2>, conv_wide_tile<6, 2>,
     conv_wide_tile<7, 2>, conv_wide_tile<8, 2>}};

void conv(const ConvRow& row, Epilogue* e) {
  const Tile* const tiles =
      row.wide ? kWideTiles[row.blocks - 1] : kTiles[row.blocks - 1];
  for (size_t left = row.pixels; left > 0;) {
    const unsigned pixels = next_tile(left, 8);
    tiles[pixels - 1](row, *e);
    e->advance(pixels);
    row.advance(pixels);
    left -= pixels;
  }
}

void sums(const ConvRow& row, int32_t* out) {
  static constexpr TileKernel<ConvRow> kSums[] = {
      sums_tile<1>, sums_tile<2>, sums_tile<3>, sums_tile<4>,
      sums_tile<5>, sums_tile<6>, sums_tile<7>, sums_tile<8>};
  sum_tiles(row, kSums, 8, out);
}

TARGET_AVX512 void transform_inputs(const TileInputs& tiles) {
  transform_tile_inputs(tiles);
}

TARGET_AVX512 void transform_sums(const int32_t* sums, size_t position, size_t tiles,
                                  int32_t (*out)[kTile][kBlock]) {
  transform_tile_sums(sums, position, tiles, out);
}

TARGET_AVX512 void requantize(const Epilogue& e, const int32_t (*sums)[kBlock],
                              unsigned pixels) {
  if (pixels == kTile && e.multiplier != nullptr && !e.averages) {
    __m512i all[kTile][1];
    UNROLL
    for (unsigned p = 0; p < kTile; ++p) all[p][0] = load(sums[p]);
    requantize_tile<kTile, 1>(e, all);
    return;
  }
  for (unsigned p = 0; p < pixels; ++p) requantize_block(e, load(sums[p]), p, 0);
}

bool is_there() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace

const RuntimeKernels* avx512_runtime_kernels() {
  static const RuntimeKernels* const available = []() -> const RuntimeKernels* {
    const RuntimeKernels* const avx2 = avx2_runtime_kernels();
    if (avx2 == nullptr || !is_there()) return nullptr;
    static RuntimeKernels kernels = *avx2;
    kernels.isa = DQA_AVX512_VNNI;
    kernels.conv_blocks = 2;
    kernels.conv = conv;
    kernels.conv_wants_spans = false;
    kernels.sums = sums;
    kernels.transform_inputs = transform_inputs;
    kernels.transform_sums = transform_sums;
    kernels.depthwise_interleaved = avx512_depthwise;
    kernels.interleaved_peak = 255;
    kernels.requantize = requantize;
    return &kernels;
  }();
  return available;
}

}  // namespace dqa

#else

namespace dqa {
const RuntimeKernels* avx512_runtime_kernels() { return nullptr; }
}  // namespace dqa

#endif
