// Convolutions, and sums of scaled codes.
#include <algorithm>
#include <chrono>

#include "runtime/kernels/tiles.h"
#include "runtime/ops/ops.h"

namespace dqa {
namespace {

// Where the taps of the first pixel of output row y begin, one row after the other.
void window_rows(const Run& run, const Op& op, const Buffer& in, uint32_t y,
                 const uint8_t** rows) {
  const size_t before = static_cast<size_t>(op.left) * in.pixel_bytes();
  for (int t = 0; t < op.taps_y; ++t) {
    const int64_t from = int64_t{y} * op.stride_y - op.top + t * op.dilation_y;
    rows[t] = run.row_or_zeros(in, from) - before;
  }
}

// How many rows a 1x1 convolution can take as one long row, because they have no gaps
// between them in any buffer: tiles then do not end with each row.
uint32_t rows_in_line(const Run& run, const Op& op, Rows rows) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  if (op.taps_y != 1 || op.taps_x != 1 || op.stride_y != 1 || op.stride_x != 1 ||
      op.top != 0 || op.left != 0 || in.height != out.height || in.width != out.width) {
    return 1;
  }
  uint32_t count = rows.end - rows.first;
  const auto limit = [&](const Buffer& b) {
    if (!is_line_buffer(b)) return;
    const bool framed = b.left != 0 || b.right != 0;
    count = std::min(count, framed ? 1 : b.rows - rows.first % b.rows);
  };
  limit(out);
  for (size_t k = 0; k < op.link_count; ++k)
    limit(run.buffer(run.plan.link(op, k).buffer));
  return count;
}

// Adds the time in which sums become codes: a convolution without taps takes it.
void time_requantizing(const Run& run, ConvRow row, Epilogue e) {
  row.taps_y = 0;
  const auto start = std::chrono::steady_clock::now();
  run.kernels.conv(row, &e);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  run.times->requantize += spent.count();
}

}  // namespace

DqaStatus conv(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Piece piece = run.piece(todo, blocks_of(out), run.kernels.conv_blocks);
  const Prepared& prepared = run.prepared[index];
  const size_t groups = groups_of(in);
  const uint8_t* rows[kMaxTaps];
  ConvRow row = {};
  row.taps_y = op.taps_y;
  const bool is_dense = op.dilation_x == 1;
  row.runs = is_dense ? 1 : op.taps_x;
  row.run_groups = is_dense ? op.taps_x * groups : groups;
  row.run_bytes = op.dilation_x * in.pixel_bytes();
  row.pixel_bytes = op.stride_x * in.pixel_bytes();
  row.wide = in.type == Type::kWide;
  row.peak = in.peak;
  row.rows = rows;
  row.start_step = kBlock;
  row.block_bytes = size_t{op.taps_y} * op.taps_x * groups * kBlock * kGroup;
  const size_t most = run.kernels.takes_blocks ? kBlocks : run.kernels.conv_blocks;
  for (size_t b = piece.first_block; b < piece.end_block; b += row.blocks) {
    row.blocks = static_cast<unsigned>(std::min(most, piece.end_block - b));
    row.weights = reinterpret_cast<const int8_t*>(run.plan.constants + op.weights) +
                  b * row.block_bytes;
    row.start = prepared.start.data() + b * kBlock;
    const std::vector<uint32_t>& spans = prepared.spans[b];
    row.spans = spans.empty() ? nullptr : spans.data();
    row.span_count = spans.size();
    uint32_t joined = 0;
    for (uint32_t y = piece.rows.first; y < piece.rows.end; y += joined) {
      joined = rows_in_line(run, op, {y, piece.rows.end});
      row.pixels = size_t{out.width} * joined;
      Epilogue e = epilogue(run, op, y, b, row.blocks);
      window_rows(run, op, in, y, rows);
      if (run.times != nullptr) time_requantizing(run, row, e);
      run.kernels.conv(row, &e);
    }
  }
  return DQA_OK;
}

DqaStatus depthwise(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Prepared& prepared = run.prepared[index];
  const uint8_t* rows[kMaxTaps];
  DepthwiseRow row = {};
  row.taps_y = op.taps_y;
  row.taps_x = op.taps_x;
  row.tap_bytes = op.dilation_x * in.pixel_bytes();
  row.pixel_bytes = op.stride_x * in.pixel_bytes();
  row.wide = in.type == Type::kWide;
  row.peak = in.peak;
  row.rows = rows;
  row.pixels = out.width;
  row.weight_step = blocks_of(in) * kBlock;
  row.interval = prepared.interval;
  row.span_rows = prepared.span_rows;
  const size_t spans =
      row.span_rows == 0 ? 0 : (op.taps_y + row.span_rows - 1) / row.span_rows;
  const bool interleaved = !prepared.interleaved.empty();
  const size_t step = interleaved ? 2 : 1;
  const Piece piece = run.piece(todo, blocks_of(out), step);
  const auto pixels = [&](DepthwiseKernel kernel, size_t b, size_t blocks) {
    const size_t first = b * kBlock;
    row.weights =
        reinterpret_cast<const int8_t*>(run.plan.constants + op.weights) + first;
    row.start = prepared.start.data() + first;
    if (spans != 0) {
      row.base = prepared.base.data() + first * spans;
      row.span_start = prepared.span_start.data() + first;
    }
    row.blocks = static_cast<unsigned>(blocks);
    for (uint32_t y = piece.rows.first; y < piece.rows.end; ++y) {
      Epilogue e = epilogue(run, op, y, b, static_cast<unsigned>(blocks));
      window_rows(run, op, in, y, rows);
      for (unsigned t = 0; t < op.taps_y; ++t) rows[t] += first * in.element_bytes();
      kernel(row, &e);
    }
  };
  if (interleaved) {
    if (piece.first_block == piece.end_block) return DQA_OK;
    const size_t number = piece.first_block / step;
    row.arrays = prepared.arrays.data() + number;
    row.interleaved = prepared.interleaved.data() +
                      number * (prepared.interleaved.size() / prepared.arrays.size());
    pixels(run.kernels.depthwise_interleaved, piece.first_block,
           piece.end_block - piece.first_block);
    return DQA_OK;
  }
  const size_t most = run.kernels.takes_blocks ? kBlocks : 1;
  for (size_t b = piece.first_block; b < piece.end_block; b += row.blocks) {
    pixels(run.kernels.depthwise, b, std::min(most, piece.end_block - b));
  }
  return DQA_OK;
}

DqaStatus add(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer& out = run.buffer(op.output);
  const Piece piece = run.piece(todo, blocks_of(out), 1);
  const int32_t nothing[kTile][kBlock] = {};
  for (uint32_t y = piece.rows.first; y < piece.rows.end; ++y) {
    for (size_t b = piece.first_block; b < piece.end_block; ++b) {
      Epilogue e = epilogue(run, op, y, b, 1);
      for (size_t left = out.width; left > 0;) {
        const unsigned pixels = next_tile(left, kTile);
        run.kernels.requantize(e, nothing, pixels);
        e.advance(pixels);
        left -= pixels;
      }
    }
  }
  return DQA_OK;
}

}  // namespace dqa
