// What the files of the AVX-512 path share.
#ifndef DQA_RUNTIME_KERNELS_AVX512_H_
#define DQA_RUNTIME_KERNELS_AVX512_H_

#include "runtime/kernels/kernels.h"

#if defined(__x86_64__)

// gcc 12 warns of its own headers (bug 105593), at the end of the functions inlined
// here.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#define TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE_AVX512                                                     \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"), \
                 always_inline)) inline

namespace dqa {

INLINE_AVX512 __m512i load(const void* at) { return _mm512_loadu_si512(at); }

// How far powers of two shift.
INLINE_AVX512 __m512i shifts(__m512 powers) {
  return _mm512_sub_epi32(_mm512_srli_epi32(_mm512_castps_si512(powers), 23),
                          _mm512_set1_epi32(127));
}

// Lower bounds as codes.
INLINE_AVX512 __m512i lowest(const float* low, const float* high) {
  return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_loadu_ps(low), _mm512_loadu_ps(high)));
}

void avx512_depthwise(const DepthwiseRow& row, Epilogue* epilogue);

}  // namespace dqa

#endif

#endif  // DQA_RUNTIME_KERNELS_AVX512_H_
