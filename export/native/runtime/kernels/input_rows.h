// Rows of inputs: loops that compilers turn into vectors, for each path with its own
// instructions.
#ifndef DQA_RUNTIME_KERNELS_INPUT_ROWS_H_
#define DQA_RUNTIME_KERNELS_INPUT_ROWS_H_

#include <cstring>

#include "runtime/kernels/kernels.h"

#define DQA_ROW_INLINE __attribute__((always_inline)) inline

namespace dqa {

template <bool kBytes, bool kAffine>
DQA_ROW_INLINE float input_value(const InputRow& row, size_t i) {
  float v = kBytes ? static_cast<const uint8_t*>(row.values)[i]
                   : static_cast<const float*>(row.values)[i];
  if (kAffine) {
    v *= row.factors[i];
    v += row.summands[i];
  }
  return v;
}

// Magnitudes are ordered like the bits of their numbers; NaN and infinity come last.
template <bool kBytes, bool kAffine>
DQA_ROW_INLINE int32_t measure_values(InputRow row) {
  int32_t largest = 0;
  for (size_t i = 0; i < row.count; ++i) {
    const float v = input_value<kBytes, kAffine>(row, i);
    int32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

template <bool kBytes, bool kAffine>
DQA_ROW_INLINE void quantize_values(InputRow row, float inverse, float limit,
                                    int16_t* __restrict codes) {
  for (size_t i = 0; i < row.count; ++i) {
    float v = input_value<kBytes, kAffine>(row, i) * inverse;
    v = v > -limit ? v : -limit;
    v = v < limit ? v : limit;
    // Rounds half to even: the sum has no bits left for a fraction.
    v += 12582912.0f;
    int32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    codes[i] = static_cast<int16_t>(bits);
  }
}

DQA_ROW_INLINE int32_t measure_row(const InputRow& row) {
  const bool affine = row.factors != nullptr;
  if (row.bytes) {
    return affine ? measure_values<true, true>(row) : measure_values<true, false>(row);
  }
  return affine ? measure_values<false, true>(row) : measure_values<false, false>(row);
}

DQA_ROW_INLINE void quantize_row(const InputRow& row, float inverse, float limit,
                                 int16_t* codes) {
  const bool affine = row.factors != nullptr;
  if (row.bytes) {
    return affine ? quantize_values<true, true>(row, inverse, limit, codes)
                  : quantize_values<true, false>(row, inverse, limit, codes);
  }
  return affine ? quantize_values<false, true>(row, inverse, limit, codes)
                : quantize_values<false, false>(row, inverse, limit, codes);
}

}  // namespace dqa

#endif  // DQA_RUNTIME_KERNELS_INPUT_ROWS_H_
