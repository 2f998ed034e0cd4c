// The transforms of tiles: loops that every path compiles with its own instructions.
#ifndef DQA_RUNTIME_KERNELS_WINOGRAD_ROWS_H_
#define DQA_RUNTIME_KERNELS_WINOGRAD_ROWS_H_

#include <cstring>

#include "runtime/kernels/kernels.h"

#define DQA_TILE_INLINE __attribute__((always_inline)) inline

// gcc keeps arrays in registers only if it unrolls every loop over them early.
#if defined(__GNUC__) && !defined(__clang__)
#define DQA_TILE_UNROLL _Pragma("GCC unroll 16")
#else
#define DQA_TILE_UNROLL
#endif

namespace dqa {

// B' d B of some channels, bytes that wrap around: what comes out fits.
template <unsigned kChannels>
DQA_TILE_INLINE void transform_channels(const TileInputs& t, size_t at) {
  using Bytes __attribute__((vector_size(kChannels))) = uint8_t;
  const Bytes shift = Bytes{} + t.shift, middle = Bytes{} + t.middle;
  Bytes part[4][4];  // B' d of the four columns of a tile
  for (size_t tile = 0; tile < t.tiles; ++tile) {
    const size_t first = tile * 2 * t.pixel_bytes + at;
    DQA_TILE_UNROLL
    for (unsigned x = 0; x < 4; ++x) {
      if (x < 2 && tile != 0) {
        DQA_TILE_UNROLL
        for (unsigned y = 0; y < 4; ++y) part[y][x] = part[y][x + 2];
        continue;
      }
      Bytes d[4];
      DQA_TILE_UNROLL
      for (unsigned y = 0; y < 4; ++y) {
        std::memcpy(&d[y], t.rows[y] + first + x * t.pixel_bytes, sizeof d[y]);
      }
      part[0][x] = d[0] - d[2];
      part[1][x] = d[1] + d[2];
      part[2][x] = d[2] - d[1];
      part[3][x] = d[1] - d[3];
    }
    uint8_t* const out = t.out + tile * t.pixel_bytes + at;
    DQA_TILE_UNROLL
    for (unsigned y = 0; y < 4; ++y) {
      const Bytes second = part[y][2] + shift;
      const Bytes moved[4] = {
          part[y][0] - part[y][2] + shift,
          y == 1 ? part[y][1] + part[y][2] + middle : part[y][1] + second,
          second - part[y][1], part[y][1] - part[y][3] + shift};
      DQA_TILE_UNROLL
      for (unsigned x = 0; x < 4; ++x) {
        std::memcpy(out + (4 * y + x) * t.position_bytes, &moved[x], sizeof moved[x]);
      }
    }
  }
}

DQA_TILE_INLINE void transform_tile_inputs(const TileInputs& t) {
  size_t at = 0;
  for (; at + 64 <= t.pixel_bytes; at += 64) transform_channels<64>(t, at);
  if (at + 32 <= t.pixel_bytes) {
    transform_channels<32>(t, at);
    at += 32;
  }
  if (at + 16 <= t.pixel_bytes) {
    transform_channels<16>(t, at);
    at += 16;
  }
  for (; at < t.pixel_bytes; at += 4) transform_channels<4>(t, at);
}

// A' M A of a block of 16 channels: two rows of pixels. Sums wrap around, as in all
// paths; plans keep them in range.
DQA_TILE_INLINE void transform_tile_sums(const int32_t* sums, size_t position,
                                         size_t tiles, int32_t (*out)[kTile][kBlock]) {
  using Sums __attribute__((vector_size(4 * kBlock))) = uint32_t;
  for (size_t tile = 0; tile < tiles; ++tile) {
    Sums part[2][4];
    DQA_TILE_UNROLL
    for (unsigned x = 0; x < 4; ++x) {
      Sums m[4];
      DQA_TILE_UNROLL
      for (unsigned y = 0; y < 4; ++y) {
        std::memcpy(&m[y], sums + (4 * y + x) * position + tile * kBlock, sizeof m[y]);
      }
      part[0][x] = m[0] + m[1] + m[2];
      part[1][x] = m[1] - m[2] - m[3];
    }
    DQA_TILE_UNROLL
    for (unsigned y = 0; y < 2; ++y) {
      const Sums left = part[y][0] + part[y][1] + part[y][2],
                 right = part[y][1] - part[y][2] - part[y][3];
      std::memcpy(out[y][2 * tile], &left, sizeof left);
      std::memcpy(out[y][2 * tile + 1], &right, sizeof right);
    }
  }
}

}  // namespace dqa

#endif  // DQA_RUNTIME_KERNELS_WINOGRAD_ROWS_H_
