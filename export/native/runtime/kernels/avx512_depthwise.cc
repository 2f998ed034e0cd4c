// Depthwise convolutions with AVX-512 and its dot products: 32 channels at a time.
#include "runtime/kernels/avx512.h"

#if defined(__x86_64__)

namespace dqa {
namespace {

// 32 channels of four taps below each other, next to each other: channels 0 to 3 of
// each 8, and the others.
struct Column {
  __m512i part[2];
};

INLINE_AVX512 Column interleave(const uint8_t* const* rows, size_t offset,
                                unsigned taps, __mmask32 mask) {
  __m512i r[4];
  for (unsigned t = 0; t < 4; ++t) {
    r[t] = t < taps
               ? _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, rows[t] + offset))
               : _mm512_setzero_si512();
  }
  const __m512i upper = _mm512_or_si512(r[0], _mm512_slli_epi16(r[1], 8)),
                lower = _mm512_or_si512(r[2], _mm512_slli_epi16(r[3], 8));
  return {{_mm512_unpacklo_epi16(upper, lower), _mm512_unpackhi_epi16(upper, lower)}};
}

// What sums of 32 channels start with, and how they become codes; see
// `requantize_codes`.
struct ColumnEnd {
  __m512i start[2];
  __m512 multiplier[2], bias[2], high[2];
  __m512i low, shift, zero;
  __mmask32 mask;
};

// An array's values of 32 channels, in the order of `Column`; of 16, if there are no
// more.
INLINE_AVX512 void in_order(const void* array, bool both, __m512i (&values)[2]) {
  const __m512i first = load(array),
                second = both ? load(static_cast<const int32_t*>(array) + 16)
                              : _mm512_setzero_si512();
  values[0] = _mm512_shuffle_i32x4(first, second, 0x88);
  values[1] = _mm512_shuffle_i32x4(first, second, 0xdd);
}

INLINE_AVX512 void in_order(const float* array, bool both, __m512 (&values)[2]) {
  __m512i bits[2];
  in_order(array, both, bits);
  for (unsigned i = 0; i < 2; ++i) values[i] = _mm512_castsi512_ps(bits[i]);
}

INLINE_AVX512 ColumnEnd column_end(const int32_t* start, const Epilogue& e, size_t c,
                                   __mmask32 mask) {
  const bool both = mask >> 16 != 0;
  ColumnEnd end;
  in_order(start + c, both, end.start);
  in_order(e.multiplier + c, both, end.multiplier);
  in_order(e.bias + c, both, end.bias);
  in_order(e.high + c, both, end.high);
  __m512 low[2], power[2];
  in_order(e.low + c, both, low);
  in_order(e.power + c, both, power);
  __m512i lows[2], powers[2];
  for (unsigned i = 0; i < 2; ++i) {
    lows[i] = _mm512_cvtps_epi32(_mm512_min_ps(low[i], end.high[i]));
    powers[i] = shifts(power[i]);
  }
  end.low = _mm512_packs_epi32(lows[0], lows[1]);
  end.shift = _mm512_packs_epi32(powers[0], powers[1]);
  end.zero = _mm512_set1_epi16(static_cast<uint8_t>(e.zero));
  end.mask = mask;
  return end;
}

INLINE_AVX512 void requantize_column(const ColumnEnd& end, const __m512i (&sums)[2],
                                     uint8_t* out) {
  __m512i codes[2];
  for (unsigned i = 0; i < 2; ++i) {
    const __m512 v = _mm512_add_ps(
        _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), end.multiplier[i]), end.bias[i]);
    codes[i] = _mm512_cvtps_epi32(_mm512_min_ps(end.high[i], v));
  }
  const __m512i clipped =
      _mm512_max_epi16(_mm512_packs_epi32(codes[0], codes[1]), end.low);
  const __m512i words =
      _mm512_add_epi16(_mm512_sllv_epi16(clipped, end.shift), end.zero);
  _mm256_mask_storeu_epi8(out, end.mask, _mm512_cvtepi16_epi8(words));
}

// Three by three taps: neighbouring windows share columns, and each is interleaved
// once.
template <unsigned kStride>
INLINE_AVX512 void depthwise_3x3(const DepthwiseRow& row, const uint8_t* const* rows,
                                 const int8_t* interleaved, const ColumnEnd& end,
                                 uint8_t* out, size_t out_bytes) {
  __m512i w[3][2];
  for (unsigned x = 0; x < 3; ++x) {
    for (unsigned i = 0; i < 2; ++i) w[x][i] = load(interleaved + 128 * x + 64 * i);
  }
  const size_t step = row.tap_bytes;
  size_t at = 0;
  Column one = interleave(rows, at, 3, end.mask), two = one;
  if (kStride == 1) two = interleave(rows, at += step, 3, end.mask);
  for (size_t p = 0; p < row.pixels; ++p, out += out_bytes) {
    if (kStride == 2) two = interleave(rows, at += step, 3, end.mask);
    const Column three = interleave(rows, at += step, 3, end.mask);
    __m512i sums[2];
    for (unsigned i = 0; i < 2; ++i) {
      sums[i] = _mm512_dpbusd_epi32(end.start[i], one.part[i], w[0][i]);
      sums[i] = _mm512_dpbusd_epi32(sums[i], two.part[i], w[1][i]);
      sums[i] = _mm512_dpbusd_epi32(sums[i], three.part[i], w[2][i]);
    }
    requantize_column(end, sums, out);
    one = kStride == 1 ? two : three;
    two = three;
  }
}

INLINE_AVX512 void depthwise_any(const DepthwiseRow& row, const uint8_t* const* rows,
                                 const int8_t* interleaved, const ColumnEnd& end,
                                 uint8_t* out, size_t out_bytes) {
  for (size_t p = 0; p < row.pixels; ++p, out += out_bytes) {
    __m512i sums[2] = {end.start[0], end.start[1]};
    const int8_t* weights = interleaved;
    for (unsigned x = 0; x < row.taps_x; ++x) {
      for (unsigned y = 0; y < row.taps_y; y += 4, weights += 128) {
        const Column column =
            interleave(rows + y, p * row.pixel_bytes + x * row.tap_bytes,
                       row.taps_y - y, end.mask);
        for (unsigned i = 0; i < 2; ++i) {
          sums[i] =
              _mm512_dpbusd_epi32(sums[i], column.part[i], load(weights + 64 * i));
        }
      }
    }
    requantize_column(end, sums, out);
  }
}

}  // namespace

TARGET_AVX512 void avx512_depthwise(const DepthwiseRow& row, Epilogue* e) {
  const size_t interleaved_bytes = size_t{row.taps_x} * ((row.taps_y + 3) / 4) * 128;
  const bool three = row.taps_y == 3 && row.taps_x == 3;
  const uint8_t* rows[kMaxTaps];
  const int8_t* interleaved = row.interleaved;
  for (size_t c = 0; c < e->channels; c += 32, interleaved += interleaved_bytes) {
    const size_t left = e->channels - c;
    const __mmask32 mask = left < 32 ? (1u << left) - 1 : ~0u;
    const ColumnEnd end = column_end(row.start, *e, c, mask);
    for (unsigned y = 0; y < row.taps_y; ++y) rows[y] = row.rows[y] + c;
    uint8_t* const out = e->out + c;
    if (three && row.pixel_bytes == row.tap_bytes) {
      depthwise_3x3<1>(row, rows, interleaved, end, out, e->out_bytes);
    } else if (three && row.pixel_bytes == 2 * row.tap_bytes) {
      depthwise_3x3<2>(row, rows, interleaved, end, out, e->out_bytes);
    } else {
      depthwise_any(row, rows, interleaved, end, out, e->out_bytes);
    }
  }
}

}  // namespace dqa

#endif
