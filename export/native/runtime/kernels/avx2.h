// What the files of the AVX2 path share.
#ifndef DQA_RUNTIME_KERNELS_AVX2_H_
#define DQA_RUNTIME_KERNELS_AVX2_H_

#include "runtime/kernels/kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

// Only these functions may use the instructions, so that the library loads anywhere.
#define TARGET_AVX2 __attribute__((target("avx2")))
#define INLINE_AVX2 __attribute__((target("avx2"), always_inline)) inline

namespace dqa {

INLINE_AVX2 __m256i load(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

INLINE_AVX2 void store(void* at, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(at), value);
}

// Eight sums as they are rounded. Those far above the highest code are cut before,
// those far below the lowest become the smallest integer: what is lower than the lowest
// code can be cut as integers.
INLINE_AVX2 __m256i rounded(__m256i sums, __m256 multiplier, __m256 bias, __m256 high) {
  const __m256 value =
      _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), multiplier), bias);
  return _mm256_cvtps_epi32(_mm256_min_ps(high, value));
}

// Lower bounds as codes.
INLINE_AVX2 __m256i lowest(const float* low, const float* high) {
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_loadu_ps(low), _mm256_loadu_ps(high)));
}

void avx2_depthwise(const DepthwiseRow& row, Epilogue* epilogue);

}  // namespace dqa

#endif

#endif  // DQA_RUNTIME_KERNELS_AVX2_H_
