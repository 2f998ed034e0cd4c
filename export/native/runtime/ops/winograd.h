// Convolutions in tiles of 2x2 outputs; see export/plan/winograd.py.
#ifndef DQA_RUNTIME_OPS_WINOGRAD_H_
#define DQA_RUNTIME_OPS_WINOGRAD_H_

#include <algorithm>

#include "runtime/plan/plan.h"

namespace dqa {

constexpr unsigned kTileSide = 2;    // outputs, down and sideways
constexpr unsigned kPositions = 16;  // products that a tile takes
// Sums of four larger codes do not fit a byte; sums over more channels do not fit 32
// bits.
constexpr uint32_t kTilePeak = 63, kTileChannels = 13420;

inline uint32_t tiles_of(uint32_t outputs) {
  return (outputs + kTileSide - 1) / kTileSide;
}

// Room for the tiles that are computed together: their inputs by position, and the sums
// of one block of outputs. Positions are padded by a cache line, so that they do not
// evict each other from the cache.
struct TileRoom {
  TileRoom(const Buffer& in, const Buffer& out)
      : pixel_bytes((in.channels + kGroup - 1) / kGroup * kGroup) {
    constexpr size_t kBytes = 32768, kMost = 32, kLeast = 8;
    const size_t all = size_t{tiles_of(out.height)} * tiles_of(out.width);
    const size_t fit = kBytes / (kPositions * pixel_bytes) / kLeast * kLeast;
    tiles = std::min(std::max(std::min(fit, kMost), kLeast), all);
    input_step = tiles * pixel_bytes + kLine;
    sums_step = tiles * kBlock + kLine / sizeof(int32_t);
    sums = align(kPositions * input_step);
    end = sums + kPositions * sums_step * sizeof(int32_t) + kLine;
  }

  static constexpr size_t kLine = 64;
  size_t pixel_bytes;  // of a tile at one position
  size_t tiles;
  size_t input_step;  // bytes from a position to the next
  size_t sums_step;   // numbers from a position to the next
  size_t sums, end;   // bytes; the inputs are at 0, and all of it begins at a line
};

}  // namespace dqa

#endif  // DQA_RUNTIME_OPS_WINOGRAD_H_
