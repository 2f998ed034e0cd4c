// What the files of the path for 64-bit Arm share.
#ifndef DQA_RUNTIME_KERNELS_NEON_H_
#define DQA_RUNTIME_KERNELS_NEON_H_

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/tiles.h"

#if defined(__aarch64__)

#include <arm_neon.h>

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

// The most pixels that are requantized at once: the arrays of their channels are read
// once.
constexpr size_t kBatch = 40;

// `kernels` by pixels - 1, `most` of them.
template <class Row>
void run_batches(const Row& row, const TileKernel<Row>* kernels, unsigned most,
                 RequantizeKernel requantize, Epilogue* epilogue) {
  for (size_t left = row.pixels; left > 0;) {
    const size_t together = std::min(left, kBatch);
    alignas(64) int32_t sums[kBatch][kBlock];
    for (size_t done = 0; done < together;) {
      const unsigned pixels = next_tile(together - done, most);
      kernels[pixels - 1](row, sums + done);
      row.advance(pixels);
      done += pixels;
    }
    requantize(*epilogue, sums, static_cast<unsigned>(together));
    epilogue->advance(together);
    left -= together;
  }
}

void neon_requantize(const Epilogue& epilogue, const int32_t (*sums)[kBlock],
                     unsigned pixels);

void neon_conv(const ConvRow& row, Epilogue* epilogue);
void neon_sums(const ConvRow& row, int32_t* sums);

// With dot products.
void neon_dot_conv(const ConvRow& row, Epilogue* epilogue);
void neon_dot_sums(const ConvRow& row, int32_t* sums);

}  // namespace dqa

#endif

#endif  // DQA_RUNTIME_KERNELS_NEON_H_
