// Cutting rows into tiles, for kernels that leave sums in memory.
#ifndef DQA_RUNTIME_KERNELS_TILES_H_
#define DQA_RUNTIME_KERNELS_TILES_H_

#include <algorithm>

#include "runtime/kernels/kernels.h"

namespace dqa {

// Pixels of the next tile: tiles get nearly the same size.
inline unsigned next_tile(size_t left, size_t max_pixels) {
  const size_t tiles = (left + max_pixels - 1) / max_pixels;
  // Never more than `max_pixels`; analyzers cannot tell.
  return static_cast<unsigned>(std::min((left + tiles - 1) / tiles, max_pixels));
}

// Sums of a tile, from `row.rows` on.
template <class Row>
using TileKernel = void (*)(const Row& row, int32_t (*sums)[kBlock]);

// `kernels` by pixels - 1, `max_pixels` of them.
template <class Row>
void run_tiles(const Row& row, const TileKernel<Row>* kernels, unsigned max_pixels,
               RequantizeKernel requantize, Epilogue* epilogue) {
  for (size_t left = row.pixels; left > 0;) {
    const unsigned pixels = next_tile(left, max_pixels);
    alignas(64) int32_t sums[kTile][kBlock];
    kernels[pixels - 1](row, sums);
    requantize(*epilogue, sums, pixels);
    epilogue->advance(pixels);
    row.advance(pixels);
    left -= pixels;
  }
}

// The same without an end, for sums alone.
template <class Row>
void sum_tiles(const Row& row, const TileKernel<Row>* kernels, unsigned max_pixels,
               int32_t* sums) {
  for (size_t left = row.pixels; left > 0;) {
    const unsigned pixels = next_tile(left, max_pixels);
    kernels[pixels - 1](row, reinterpret_cast<int32_t(*)[kBlock]>(sums));
    sums += pixels * kBlock;
    row.advance(pixels);
    left -= pixels;
  }
}

}  // namespace dqa

#endif  // DQA_RUNTIME_KERNELS_TILES_H_
