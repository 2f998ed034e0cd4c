// Convolutions in tiles of 2x2 outputs.
#include "runtime/ops/winograd.h"

#include <algorithm>

#include "runtime/ops/ops.h"

namespace dqa {
namespace {

// Tiles first..end of one row of tiles.
struct Segment {
  uint32_t row;
  size_t first, end;
  size_t at;  // where they begin among the tiles that are computed together
};

// Some tiles of a piece of an op, in the order of its pixels.
class Tiles {
 public:
  Tiles(const Run& run, size_t index, Piece piece)
      : run_(run),
        op_(run.plan.ops[index]),
        prepared_(run.prepared[index]),
        in_(run.input(op_)),
        out_(run.buffer(op_.output)),
        piece_(piece),
        room_(in_, out_),
        memory_(run.row_scratch()) {
    memory_ += -reinterpret_cast<uintptr_t>(memory_) % TileRoom::kLine;
  }

  void operator()() {
    const size_t across = tiles_of(out_.width);
    const uint32_t first = piece_.rows.first / kTileSide;
    const size_t all = (tiles_of(piece_.rows.end) - first) * across;
    for (size_t tile = 0; tile < all; tile += count_) {
      count_ = std::min(room_.tiles, all - tile);
      segments_.clear();
      for (size_t at = 0; at < count_;) {
        const auto row = static_cast<uint32_t>((tile + at) / across);
        const size_t begin = (tile + at) % across;
        const size_t end = std::min(across, begin + count_ - at);
        segments_.push_back({first + row, begin, end, at});
        at += end - begin;
      }
      for (const Segment& segment : segments_) transform_inputs(segment);
      for (size_t b = piece_.first_block; b < piece_.end_block; ++b) {
        multiply(b);
        for (const Segment& segment : segments_) transform_sums(segment, b);
      }
    }
  }

 private:
  void transform_inputs(const Segment& segment) const {
    TileInputs t;
    const uint32_t y = segment.row * kTileSide;
    const size_t pixel = in_.pixel_bytes();
    const size_t before = static_cast<size_t>(op_.left) * pixel;
    for (unsigned i = 0; i < 4; ++i) {
      // The last row of a tile is for its second row of outputs.
      const bool is_seen = i < 3 || y + 1 < out_.height;
      const int64_t from = int64_t{y} - op_.top + (is_seen ? i : 2);
      t.rows[i] =
          run_.row_or_zeros(in_, from) - before + segment.first * kTileSide * pixel;
    }
    t.pixel_bytes = pixel;
    t.tiles = segment.end - segment.first;
    t.out = memory_ + segment.at * pixel;
    t.position_bytes = room_.input_step;
    t.shift = run_.kernels.tile_shift;
    t.middle = static_cast<uint8_t>(t.shift - 2 * kTilePeak);
    run_.kernels.transform_inputs(t);
  }

  void multiply(size_t block) const {
    const size_t bytes = room_.pixel_bytes * kBlock;
    const size_t blocks = blocks_of(out_);
    const auto* const weights =
        reinterpret_cast<const int8_t*>(run_.plan.constants + op_.weights) +
        block * kPositions * bytes;
    ConvRow row = {};
    row.taps_y = row.runs = row.blocks = 1;
    row.run_groups = room_.pixel_bytes / kGroup;
    row.pixel_bytes = room_.pixel_bytes;
    row.peak = 127;  // as signed bytes; as unsigned ones they may be larger
    row.pixels = count_;
    const uint8_t* at[kPositions];
    for (unsigned p = 0; p < kPositions; ++p) at[p] = memory_ + p * room_.input_step;
    const unsigned together = run_.kernels.takes_blocks ? kPositions : 1;
    row.blocks = together;
    row.block_bytes = bytes;
    row.rows_step = 1;
    row.sums_step = room_.sums_step;
    row.start_step = blocks * kBlock;
    for (unsigned p = 0; p < kPositions; p += together) {
      row.rows = at + p;
      row.weights = weights + p * bytes;
      row.start = prepared_.start.data() + (p * blocks + block) * kBlock;
      run_.kernels.sums(row, sums() + p * room_.sums_step);
    }
  }

  void transform_sums(const Segment& segment, size_t block) const {
    const uint32_t y = segment.row * kTileSide;
    const unsigned rows = y + 1 < out_.height ? 2 : 1;
    const size_t before = segment.first * kTileSide;
    Epilogue e[2];
    for (unsigned i = 0; i < rows; ++i) {
      e[i] = epilogue(run_, op_, y + i, block, 1);
      e[i].advance(before);
    }
    size_t pixels = std::min<size_t>(segment.end * kTileSide, out_.width) - before;
    for (size_t tile = 0; pixels > 0; tile += kTile / kTileSide) {
      const size_t tiles =
          std::min<size_t>(kTile / kTileSide, segment.end - segment.first - tile);
      const auto now = static_cast<unsigned>(std::min<size_t>(pixels, kTile));
      alignas(64) int32_t transformed[2][kTile][kBlock];
      run_.kernels.transform_sums(sums() + (segment.at + tile) * kBlock,
                                  room_.sums_step, tiles, transformed);
      for (unsigned i = 0; i < rows; ++i) {
        run_.kernels.requantize(e[i], transformed[i], now);
        e[i].advance(now);
      }
      pixels -= now;
    }
  }

  int32_t* sums() const { return reinterpret_cast<int32_t*>(memory_ + room_.sums); }

  const Run& run_;
  const Op& op_;
  const Prepared& prepared_;
  const Buffer &in_, &out_;
  const Piece piece_;
  const TileRoom room_;
  uint8_t* memory_;
  size_t count_ = 0;  // of tiles that are computed together
  std::vector<Segment> segments_;
};

}  // namespace

DqaStatus winograd(Run& run, size_t index, Rows todo) {
  const Buffer& out = run.buffer(run.plan.ops[index].output);
  // Whole tiles for each thread.
  const Rows tiles{todo.first / kTileSide, tiles_of(todo.end)};
  Piece piece = run.piece(tiles, blocks_of(out), 1);
  if (piece.first_block == piece.end_block || piece.rows.first == piece.rows.end) {
    return DQA_OK;
  }
  piece.rows.first *= kTileSide;
  piece.rows.end = std::min(piece.rows.end * kTileSide, out.height);
  Tiles(run, index, piece)();
  return DQA_OK;
}

}  // namespace dqa
