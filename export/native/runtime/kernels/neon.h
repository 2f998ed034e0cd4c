// What the files of the path for 64-bit Arm share.
#ifndef DQA_RUNTIME_KERNELS_NEON_H_
#define DQA_RUNTIME_KERNELS_NEON_H_

#include "runtime/kernels/kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>

// gcc keeps arrays in registers only if it unrolls every loop over them early, and if
// it does not load the next weights while sums still wait for these.
#if defined(__GNUC__) && !defined(__clang__)
#define DQA_NEON_UNROLL _Pragma("GCC unroll 16")
#define DQA_NEON_KEEP_ORDER _Pragma("GCC optimize(\"no-schedule-insns\")")
#else
#define DQA_NEON_UNROLL
#define DQA_NEON_KEEP_ORDER
#endif

namespace dqa {

void neon_requantize(const Epilogue& epilogue, const int32_t (*sums)[kBlock],
                     unsigned pixels);

// The most pixels that are requantized at once: the arrays of their channels are read
// once.
constexpr size_t kBatch = 40;

// Computes the sums of some tiles of as many pixels each.
template <class Row>
using TilesKernel = void (*)(const Row& row, size_t tiles, int32_t (*sums)[kBlock]);

// `kernels` by pixels - 1, `max_pixels` of them. Tiles differ by a pixel at most: a
// kernel computes all that are larger, another one the others.
template <class Row>
void compute_tiles(const Row& row, const TilesKernel<Row>* kernels, unsigned max_pixels,
                   size_t pixels, int32_t (*sums)[kBlock]) {
  const size_t tiles = (pixels + max_pixels - 1) / max_pixels, small = pixels / tiles,
               large = pixels - tiles * small;
  if (large > 0) {
    kernels[small](row, large, sums);
    row.advance(large * (small + 1));
    sums += large * (small + 1);
  }
  kernels[small - 1](row, tiles - large, sums);
  row.advance((tiles - large) * small);
}

template <class Row>
void run_batches(const Row& row, const TilesKernel<Row>* kernels, unsigned max_pixels,
                 Epilogue* epilogue) {
  for (size_t left = row.pixels; left > 0;) {
    const size_t together = std::min(left, kBatch);
    alignas(64) int32_t sums[kBatch][kBlock];
    compute_tiles(row, kernels, max_pixels, together, sums);
    neon_requantize(*epilogue, sums, static_cast<unsigned>(together));
    epilogue->advance(together);
    left -= together;
  }
}

void neon_conv(const ConvRow& row, Epilogue* epilogue);
void neon_sums(const ConvRow& row, int32_t* sums);

// With dot products.
void neon_dot_conv(const ConvRow& row, Epilogue* epilogue);
void neon_dot_sums(const ConvRow& row, int32_t* sums);

}  // namespace dqa

#endif

#endif  // DQA_RUNTIME_KERNELS_NEON_H_
