// The path for x86-64 with the dot products of AVX-VNNI, and AVX2 for the rest.
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/tiles.h"

// Compilers know the instructions from these versions on.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)

#include <cpuid.h>
#include <immintrin.h>

#include <cstring>

#define TARGET_AVX_VNNI __attribute__((target("avx2,avxvnni")))

namespace dqa {
namespace {

template <unsigned kPixels>
TARGET_AVX_VNNI void conv_tile(const ConvRow& row, int32_t (*sums)[kBlock]) {
  __m256i total[kPixels][2];
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned h = 0; h < 2; ++h) {
      total[p][h] =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.start + 8 * h));
    }
  }
  const int8_t* weights = row.weights;
  for (unsigned y = 0; y < row.taps_y; ++y) {
    for (unsigned run = 0; run < row.runs; ++run) {
      const uint8_t* at = row.rows[y] + run * row.run_bytes;
      const int8_t* const end = weights + row.run_groups * kBlock * kGroup;
      for (; weights != end; weights += kBlock * kGroup, at += kGroup) {
        const auto* const w = reinterpret_cast<const __m256i*>(weights);
        const __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1);
        for (unsigned p = 0; p < kPixels; ++p) {
          int32_t four;
          std::memcpy(&four, at + p * row.pixel_bytes, sizeof four);
          const __m256i x = _mm256_set1_epi32(four);
          total[p][0] = _mm256_dpbusd_avx_epi32(total[p][0], x, w0);
          total[p][1] = _mm256_dpbusd_avx_epi32(total[p][1], x, w1);
        }
      }
    }
  }
  for (unsigned p = 0; p < kPixels; ++p) {
    for (unsigned h = 0; h < 2; ++h) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[p] + 8 * h), total[p][h]);
    }
  }
}

constexpr TileKernel<ConvRow> kTiles[] = {conv_tile<1>, conv_tile<2>, conv_tile<3>,
                                          conv_tile<4>, conv_tile<5>, conv_tile<6>};

void conv(const ConvRow& row, Epilogue* epilogue) {
  const RuntimeKernels& avx2 = *avx2_runtime_kernels();
  if (row.wide) return avx2.conv(row, epilogue);
  run_tiles(row, kTiles, 6, avx2.requantize, epilogue);
}

void sums(const ConvRow& row, int32_t* out) { sum_tiles(row, kTiles, 6, out); }

// Bit 4 of EAX of CPUID's leaf 7.1; the compiler's own check does not know it yet.
bool is_there() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
}

}  // namespace

const RuntimeKernels* avx_vnni_runtime_kernels() {
  static const RuntimeKernels* const available = []() -> const RuntimeKernels* {
    const RuntimeKernels* const avx2 = avx2_runtime_kernels();
    if (avx2 == nullptr || !is_there()) return nullptr;
    static RuntimeKernels kernels = *avx2;
    kernels.isa = DQA_AVX_VNNI;
    kernels.conv = conv;
    kernels.conv_wants_spans = false;
    kernels.sums = sums;
    return &kernels;
  }();
  return available;
}

}  // namespace dqa

#else

namespace dqa {
const RuntimeKernels* avx_vnni_runtime_kernels() { return nullptr; }
}  // namespace dqa

#endif
