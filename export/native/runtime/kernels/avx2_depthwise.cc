// Depthwise convolutions with AVX2: 32 channels at a time.
#include "runtime/kernels/avx2.h"

#if defined(__x86_64__)

namespace dqa {
namespace {

constexpr size_t kTogether = 32, kEight = 8;

// 32 channels of four taps below each other, next to each other, in the order of
// `DepthwiseRow::interleaved`.
struct Column {
  __m256i part[4];
};

INLINE_AVX2 Column interleave(const uint8_t* const* rows, size_t offset,
                              unsigned taps) {
  __m256i r[4];
  for (unsigned t = 0; t < 4; ++t) {
    // Channels 8 to 15 change places with 16 to 23.
    r[t] = t < taps ? _mm256_permute4x64_epi64(load(rows[t] + offset), 0xd8)
                    : _mm256_setzero_si256();
  }
  const __m256i upper[2] = {_mm256_unpacklo_epi8(r[0], r[1]),
                            _mm256_unpackhi_epi8(r[0], r[1])};
  const __m256i lower[2] = {_mm256_unpacklo_epi8(r[2], r[3]),
                            _mm256_unpackhi_epi8(r[2], r[3])};
  Column column;
  for (unsigned j = 0; j < 2; ++j) {
    column.part[j] = _mm256_unpacklo_epi16(upper[j], lower[j]);
    column.part[2 + j] = _mm256_unpackhi_epi16(upper[j], lower[j]);
  }
  return column;
}

// Adds the products of four taps: pairs fit 16 bits.
INLINE_AVX2 __m256i add_products(__m256i sum, __m256i codes, const int8_t* weights) {
  const __m256i pairs = _mm256_maddubs_epi16(codes, load(weights));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// What sums of 32 channels start with, and how they become codes.
struct ColumnEnd {
  __m256i start[4];
  __m256 multiplier[4], bias[4], high[4];
  __m256i low[2], power[2], zero;
};

// An array's values of 32 channels, in that order.
INLINE_AVX2 void in_order(const void* array, __m256i (&values)[4]) {
  for (unsigned j = 0; j < 2; ++j) {
    const __m256i first = load(static_cast<const int32_t*>(array) + 2 * kEight * j),
                  second = load(static_cast<const int32_t*>(array) + 2 * kEight * j +
                                kEight);
    values[j] = _mm256_permute2x128_si256(first, second, 0x20);
    values[2 + j] = _mm256_permute2x128_si256(first, second, 0x31);
  }
}

INLINE_AVX2 void in_order(const float* array, __m256 (&values)[4]) {
  __m256i bits[4];
  in_order(array, bits);
  for (unsigned n = 0; n < 4; ++n) values[n] = _mm256_castsi256_ps(bits[n]);
}

INLINE_AVX2 __m256i words(__m256 a, __m256 b) {
  return _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
}

INLINE_AVX2 ColumnEnd column_end(const int32_t* start, const Epilogue& e, size_t c) {
  ColumnEnd end;
  in_order(start + c, end.start);
  in_order(e.multiplier + c, end.multiplier);
  in_order(e.bias + c, end.bias);
  in_order(e.high + c, end.high);
  __m256 low[4], power[4];
  in_order(e.low + c, low);
  in_order(e.power + c, power);
  for (unsigned j = 0; j < 2; ++j) {
    end.low[j] = words(_mm256_min_ps(low[j], end.high[j]),
                       _mm256_min_ps(low[2 + j], end.high[2 + j]));
    end.power[j] = words(power[j], power[2 + j]);
  }
  end.zero = _mm256_set1_epi16(static_cast<int16_t>(e.zero));
  return end;
}

INLINE_AVX2 void requantize_column(const ColumnEnd& end, const __m256i (&sums)[4],
                                   uint8_t* out) {
  __m256i codes[4], words[2];
  for (unsigned n = 0; n < 4; ++n) {
    codes[n] = rounded(sums[n], end.multiplier[n], end.bias[n], end.high[n]);
  }
  for (unsigned j = 0; j < 2; ++j) {
    const __m256i clipped =
        _mm256_max_epi16(_mm256_packs_epi32(codes[j], codes[2 + j]), end.low[j]);
    words[j] = _mm256_add_epi16(_mm256_mullo_epi16(clipped, end.power[j]), end.zero);
  }
  store(out, _mm256_permute4x64_epi64(_mm256_packus_epi16(words[0], words[1]), 0xd8));
}

// Three by three taps: neighbouring windows share columns, and each is interleaved
// once.
template <unsigned kStride>
TARGET_AVX2 void depthwise_3x3(const DepthwiseRow& row, const uint8_t* const* rows,
                               const int8_t* interleaved, const ColumnEnd& end,
                               uint8_t* out, size_t out_bytes) {
  constexpr size_t kTap = 4 * kTogether;
  const size_t step = row.tap_bytes;
  size_t at = 0;
  Column one = interleave(rows, at, 3), two = one;
  if (kStride == 1) two = interleave(rows, at += step, 3);
  for (size_t p = 0; p < row.pixels; ++p, out += out_bytes) {
    if (kStride == 2) two = interleave(rows, at += step, 3);
    const Column three = interleave(rows, at += step, 3);
    __m256i sums[4];
    for (size_t n = 0; n < 4; ++n) {
      const int8_t* const weights = interleaved + kTogether * n;
      sums[n] = end.start[n];
      sums[n] = add_products(sums[n], one.part[n], weights);
      sums[n] = add_products(sums[n], two.part[n], weights + kTap);
      sums[n] = add_products(sums[n], three.part[n], weights + 2 * kTap);
    }
    requantize_column(end, sums, out);
    one = kStride == 1 ? two : three;
    two = three;
  }
}

TARGET_AVX2 void depthwise_any(const DepthwiseRow& row, const uint8_t* const* rows,
                               const int8_t* interleaved, const ColumnEnd& end,
                               uint8_t* out, size_t out_bytes) {
  for (size_t p = 0; p < row.pixels; ++p, out += out_bytes) {
    __m256i sums[4];
    for (size_t n = 0; n < 4; ++n) sums[n] = end.start[n];
    const int8_t* weights = interleaved;
    for (unsigned x = 0; x < row.taps_x; ++x) {
      for (unsigned y = 0; y < row.taps_y; y += 4) {
        const Column column = interleave(
            rows + y, p * row.pixel_bytes + x * row.tap_bytes, row.taps_y - y);
        for (size_t n = 0; n < 4; ++n, weights += kTogether) {
          sums[n] = add_products(sums[n], column.part[n], weights);
        }
      }
    }
    requantize_column(end, sums, out);
  }
}

}  // namespace

TARGET_AVX2 void avx2_depthwise(const DepthwiseRow& row, Epilogue* e) {
  const size_t interleaved_bytes =
      size_t{row.taps_x} * ((row.taps_y + 3) / 4) * 4 * kTogether;
  const bool three = row.taps_y == 3 && row.taps_x == 3;
  const uint8_t* rows[kMaxTaps];
  const int8_t* interleaved = row.interleaved;
  size_t c = 0;
  for (; c + kTogether <= e->channels;
       c += kTogether, interleaved += interleaved_bytes) {
    const ColumnEnd end = column_end(row.start, *e, c);
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
  for (; c < e->channels; c += kBlock) {
    Epilogue rest = e->block(static_cast<unsigned>(c / kBlock));
    DepthwiseRow block = row;
    block.rows = rows;
    for (unsigned y = 0; y < row.taps_y; ++y) rows[y] = row.rows[y] + c;
    block.weights += c;
    block.start += c;
    avx2_runtime_kernels()->depthwise(block, &rest);
  }
}

}  // namespace dqa

#endif
