// Convolutions, and sums of scaled codes.
#include <algorithm>
#include <chrono>
#include <cstring>

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

// What is the same for all rows and blocks of a convolution.
ConvRow whole_conv(const Op& op, const Buffer& in) {
  const size_t groups = groups_of(in);
  ConvRow row = {};
  row.taps_y = op.taps_y;
  const bool is_dense = op.dilation_x == 1;
  row.runs = is_dense ? 1 : op.taps_x;
  row.run_groups = is_dense ? op.taps_x * groups : groups;
  row.run_bytes = op.dilation_x * in.pixel_bytes();
  row.pixel_bytes = op.stride_x * in.pixel_bytes();
  row.wide = in.type == Type::kWide;
  row.peak = in.peak;
  row.start_step = kBlock;
  row.block_bytes = size_t{op.taps_y} * op.taps_x * groups * kBlock * kGroup;
  return row;
}

// Some blocks from number b on, at most those before `end`.
void set_blocks(const Run& run, size_t index, size_t b, size_t end, ConvRow* row) {
  const Prepared& prepared = run.prepared[index];
  const size_t most = run.kernels.takes_blocks ? kBlocks : run.kernels.conv_blocks;
  row->blocks = static_cast<unsigned>(std::min(most, end - b));
  row->weights = reinterpret_cast<const int8_t*>(run.plan.constants +
                                                 run.plan.ops[index].weights) +
                 b * row->block_bytes;
  row->start = prepared.start.data() + b * kBlock;
  if (prepared.spans.empty()) return;
  const std::vector<uint32_t>& spans = prepared.spans[b];
  row->spans = spans.empty() ? nullptr : spans.data();
  row->span_count = spans.size();
}

// The groups of channels that are this thread's.
Piece group_piece(const Run& run, Rows rows, const Buffer& b) {
  const size_t groups = (blocks_of(b) + b.group - 1) / b.group;
  return {rows, groups * run.part / run.parts * b.group,
          std::min(blocks_of(b), groups * (run.part + 1) / run.parts * b.group)};
}

// One group of channels of a grouped buffer, which begins at channel `first`.
class Group {
 public:
  Group(Run& run, size_t maker, size_t first)
      : run_(run),
        maker_(maker),
        buffer_(run.buffer(run.plan.ops[maker].output)),
        first_(first),
        pixel_(group_channels(buffer_, first)),
        row_bytes_(kept_row_bytes(run.plan, buffer_, first)),
        rows_(run.arena + buffer_.offset) {
    for (size_t before = 0; before < first; before += group_channels(buffer_, before)) {
      rows_ += buffer_.rows * kept_row_bytes(run.plan, buffer_, before);
    }
  }

  size_t pixel_bytes() const { return pixel_; }

  // Computes rows, which begin `step` bytes after each other.
  void compute(Rows rows, uint8_t* to, size_t step) const {
    const Op& maker = run_.plan.ops[maker_];
    const Buffer& from = run_.input(maker);
    const uint8_t* at[kMaxTaps];
    ConvRow row = whole_conv(maker, from);
    row.rows = at;
    row.pixels = buffer_.width;
    const size_t end = (first_ + pixel_) / kBlock;
    for (size_t b = first_ / kBlock; b < end; b += row.blocks) {
      set_blocks(run_, maker_, b, end, &row);
      for (uint32_t y = rows.first; y < rows.end; ++y) {
        Epilogue e = epilogue(run_, maker, y, b, row.blocks);
        e.out = to + (y - rows.first) * step + b * kBlock - first_;
        e.out_bytes = pixel_;
        window_rows(run_, maker, from, y, at);
        run_.kernels.conv(row, &e);
      }
    }
  }

  DqaStatus keep(uint32_t y, uint8_t* row) const {
    if (buffer_.table != kNone) {
      return pack_line(run_, table(), buffer_, row, kept_row(y), row_bytes_);
    }
    std::memcpy(kept_row(y), row, row_bytes_);
    return DQA_OK;
  }

  DqaStatus load_kept(uint32_t y, uint8_t* row) const {
    if (buffer_.table != kNone) {
      return unpack_line(run_, table(), buffer_, kept_row(y), row_bytes_, row);
    }
    std::memcpy(row, kept_row(y), row_bytes_);
    return DQA_OK;
  }

 private:
  uint8_t* kept_row(uint32_t y) const { return rows_ + y % buffer_.rows * row_bytes_; }

  const Table& table() const {
    return run_.plan.tables[buffer_.table + first_ / (buffer_.group * kBlock)];
  }

  Run& run_;
  const size_t maker_;
  const Buffer& buffer_;
  const size_t first_, pixel_, row_bytes_;
  uint8_t* rows_;
};

// The rows of a grouped buffer that a window covers.
class GroupWindow {
 public:
  GroupWindow(Run& run, size_t index, Rows todo)
      : run_(run),
        index_(index),
        op_(run.plan.ops[index]),
        in_(run.input(op_)),
        seen_(rows_seen(run.plan, op_, run.plan.link(op_, 0), todo)),
        made_(rows_made(run.plan, op_, todo)) {}

  // Fills the window with the group that begins at a channel: rows that were kept, rows
  // that are computed, and zeros.
  DqaStatus fill(size_t first) {
    const Group group(run_, index_ - 1, first);
    pixel_ = group.pixel_bytes();
    const size_t row = row_bytes();
    const size_t left = in_.left * pixel_, width = in_.width * pixel_;
    for (int64_t y = seen_.first; y < seen_.end; ++y) {
      uint8_t* const to = framed_row(y);
      if (y < 0 || y >= in_.height) {
        std::memset(to, in_.zero, row);
        continue;
      }
      std::memset(to, in_.zero, left);
      std::memset(to + left + width, in_.zero, row - left - width);
      if (y >= made_.first) continue;
      const DqaStatus status = group.load_kept(static_cast<uint32_t>(y), to + left);
      if (status != DQA_OK) return status;
    }
    group.compute(made_, framed_row(made_.first) + left, row);
    const uint32_t from =
        std::max(made_.first, made_.end - std::min(made_.end, in_.rows));
    for (uint32_t y = from; y < made_.end; ++y) {
      if (const DqaStatus status = group.keep(y, framed_row(y) + left)) return status;
    }
    return DQA_OK;
  }

  size_t pixel_bytes() const { return pixel_; }

  // Where the taps of the first pixel of output row y begin.
  void rows(uint32_t y, const uint8_t** rows) const {
    for (int t = 0; t < op_.taps_y; ++t) {
      const int64_t from = int64_t{y} * op_.stride_y - op_.top + t * op_.dilation_y;
      rows[t] =
          framed_row(std::max(from, seen_.first)) +
          (static_cast<size_t>(in_.left) - static_cast<size_t>(op_.left)) * pixel_;
    }
  }

 private:
  size_t row_bytes() const {
    return (size_t{in_.left} + in_.width + in_.right) * pixel_;
  }

  uint8_t* framed_row(int64_t y) const {
    return run_.row_scratch() + static_cast<size_t>(y - seen_.first) * row_bytes();
  }

  Run& run_;
  const size_t index_;
  const Op& op_;
  const Buffer& in_;
  const SeenRows seen_;
  const Rows made_;
  size_t pixel_ = 0;
};

// Computes rows of a grouped buffer that are only kept.
DqaStatus conv_kept(Run& run, size_t index, Rows todo) {
  const Buffer& out = run.buffer(run.plan.ops[index].output);
  const Piece piece = group_piece(run, todo, out);
  for (size_t b = piece.first_block; b < piece.end_block; b += out.group) {
    const Group group(run, index, b * kBlock);
    for (uint32_t y = todo.first; y < todo.end; ++y) {
      group.compute({y, y + 1}, run.row_scratch(), 0);
      if (const DqaStatus status = group.keep(y, run.row_scratch())) return status;
    }
  }
  return DQA_OK;
}

}  // namespace

DqaStatus conv(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  if (is_grouped(out)) return conv_kept(run, index, todo);
  const Piece piece = run.piece(todo, blocks_of(out), run.kernels.conv_blocks);
  const uint8_t* rows[kMaxTaps];
  ConvRow row = whole_conv(op, in);
  row.rows = rows;
  for (size_t b = piece.first_block; b < piece.end_block; b += row.blocks) {
    set_blocks(run, index, b, piece.end_block, &row);
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
  const bool grouped = is_grouped(in);
  const size_t group = in.group * kBlock;
  const Piece piece =
      grouped ? group_piece(run, todo, in) : run.piece(todo, blocks_of(out), step);
  GroupWindow window(run, index, todo);
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
      if (grouped) {
        window.rows(y, rows);
        for (unsigned t = 0; t < op.taps_y; ++t) rows[t] += first % group;
      } else {
        window_rows(run, op, in, y, rows);
        for (unsigned t = 0; t < op.taps_y; ++t) rows[t] += first * in.element_bytes();
      }
      kernel(row, &e);
    }
  };
  const auto compute = [&](size_t first, size_t end) {
    if (interleaved) {
      if (first == end) return;
      const size_t number = first / step;
      const size_t all = (blocks_of(out) + step - 1) / step;
      row.interleaved =
          prepared.interleaved.data() + number * (prepared.interleaved.size() / all);
      pixels(run.kernels.depthwise_interleaved, first, end - first);
      return;
    }
    const size_t most = run.kernels.takes_blocks ? kBlocks : 1;
    for (size_t b = first; b < end; b += row.blocks) {
      pixels(run.kernels.depthwise, b, std::min(most, end - b));
    }
  };
  if (!grouped) {
    compute(piece.first_block, piece.end_block);
    return DQA_OK;
  }
  for (size_t b = piece.first_block; b < piece.end_block; b += in.group) {
    if (const DqaStatus status = window.fill(b * kBlock)) return status;
    row.pixel_bytes = op.stride_x * window.pixel_bytes();
    row.tap_bytes = op.dilation_x * window.pixel_bytes();
    compute(b, std::min(b + in.group, piece.end_block));
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
