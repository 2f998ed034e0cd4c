// Convolutions, and sums of scaled codes.
#include "ops.h"

namespace dqa {
namespace {

// Neighbouring pixels in tiles of nearly the same size.
template <class Tile>
void tiles(size_t width, Tile tile) {
  const size_t count = (width + kTile - 1) / kTile;
  for (size_t i = 0, x = 0; i < count; ++i) {
    const size_t end = width * (i + 1) / count;
    tile(x, static_cast<unsigned>(end - x));
    x = end;
  }
}

// Where the taps of the first pixel of output row y begin, one row after the other.
void window_rows(const Run& run, const Op& op, const Buffer& in, uint32_t y,
                 const uint8_t** rows) {
  const size_t before = static_cast<size_t>(op.left) * in.pixel_bytes();
  for (int t = 0; t < op.taps_y; ++t) {
    const int64_t from = int64_t{y} * op.stride_y - op.top + t * op.dilation_y;
    rows[t] = run.row_or_zeros(in, from) - before;
  }
}

void move_on(const Op& op, size_t bytes, const uint8_t** rows) {
  for (unsigned t = 0; t < op.taps_y; ++t) rows[t] += bytes;
}

}  // namespace

void conv(const Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Prepared& prepared = run.prepared[index];
  const size_t groups = (in.channels + kGroup - 1) / kGroup;
  ConvShape shape;
  shape.taps_y = op.taps_y;
  const bool joined = op.dilation_x == 1;
  shape.runs = joined ? 1 : op.taps_x;
  shape.run_groups = joined ? op.taps_x * groups : groups;
  shape.run_bytes = op.dilation_x * in.pixel_bytes();
  shape.pixel_bytes = op.stride_x * in.pixel_bytes();
  const size_t block_bytes = size_t{op.taps_y} * op.taps_x * groups * kBlock * kGroup;
  const int8_t* weights =
      reinterpret_cast<const int8_t*>(run.plan.constants + op.weights);
  for (size_t b = 0; b < blocks_of(out); ++b, weights += block_bytes) {
    shape.interval = prepared.interval[b];
    const ConvKernel* const kernels = in.type == Type::kWide ? run.kernels.conv_wide
                                      : shape.interval == 0  ? run.kernels.conv_exact
                                                             : run.kernels.conv;
    for (uint32_t y = todo.first; y < todo.end; ++y) {
      Epilogue e = epilogue(run, op, y, b);
      const uint8_t* rows[kMaxTaps];
      window_rows(run, op, in, y, rows);
      tiles(out.width, [&](size_t, unsigned pixels) {
        alignas(32) int32_t sums[kTile][kBlock];
        kernels[pixels - 1](shape, rows, weights, prepared.start.data() + b * kBlock,
                            sums);
        run.kernels.finish(e, sums, pixels);
        e.advance(pixels);
        move_on(op, pixels * shape.pixel_bytes, rows);
      });
    }
  }
}

void depthwise(const Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Prepared& prepared = run.prepared[index];
  DepthwiseShape shape;
  shape.taps_y = op.taps_y;
  shape.taps_x = op.taps_x;
  shape.tap_bytes = op.dilation_x * in.pixel_bytes();
  shape.pixel_bytes = op.stride_x * in.pixel_bytes();
  shape.weight_step = blocks_of(in) * kBlock;
  shape.interval = prepared.interval[0];
  const DepthwiseKernel kernel =
      in.type == Type::kWide ? run.kernels.depthwise_wide : run.kernels.depthwise;
  const int8_t* const weights =
      reinterpret_cast<const int8_t*>(run.plan.constants + op.weights);
  for (uint32_t y = todo.first; y < todo.end; ++y) {
    for (size_t b = 0; b < blocks_of(out); ++b) {
      Epilogue e = epilogue(run, op, y, b);
      const uint8_t* rows[kMaxTaps];
      window_rows(run, op, in, y, rows);
      move_on(op, b * kBlock * in.element_bytes(), rows);
      tiles(out.width, [&](size_t, unsigned pixels) {
        alignas(32) int32_t sums[kTile][kBlock];
        kernel(shape, rows, pixels, weights + b * kBlock,
               prepared.start.data() + b * kBlock, sums);
        run.kernels.finish(e, sums, pixels);
        e.advance(pixels);
        move_on(op, pixels * shape.pixel_bytes, rows);
      });
    }
  }
}

void combine(const Run& run, const Op& op, uint32_t y) {
  const Buffer& out = run.buffer(op.output);
  const int32_t nothing[kTile][kBlock] = {};
  for (size_t b = 0; b < blocks_of(out); ++b) {
    Epilogue e = epilogue(run, op, y, b);
    tiles(out.width, [&](size_t, unsigned pixels) {
      run.kernels.finish(e, nothing, pixels);
      e.advance(pixels);
    });
  }
}

}  // namespace dqa
