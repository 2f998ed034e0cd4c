// Enlarging images. Rows of a hostile plan may overlap: hence memmove.
#include <cstring>

#include "runtime/ops/ops.h"

namespace dqa {
namespace {

// Two neighbours along an axis that grows `s` times, and the weight of the second in
// parts of 2 s.
struct Between {
  uint32_t first, second;
  int32_t weight;
};

Between between(uint32_t at, uint32_t s, uint32_t size) {
  const uint32_t doubled = 2 * at + 1 + s;
  const uint32_t second = doubled / (2 * s);
  const auto weight = static_cast<int32_t>(doubled % (2 * s));
  return {second == 0 ? 0 : second - 1, second < size ? second : size - 1, weight};
}

void nearest_row(const Run& run, const Op& op, uint32_t y) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const size_t bytes = in.pixel_bytes();
  uint8_t* to = run.row(out, y);
  const uint8_t* from = run.row(in, y / op.stride_y);
  for (size_t x = 0; x < in.width; ++x, from += bytes) {
    for (unsigned i = 0; i < op.stride_x; ++i, to += bytes) {
      std::memmove(to, from, bytes);
    }
  }
}

// Sets of channels, by rows of pixels, become the pixels of a block.
void depth_to_space_row(const Run& run, const Op& op, uint32_t y) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const size_t bytes = out.channels * out.element_bytes();
  uint8_t* to = run.row(out, y);
  const uint8_t* const from =
      run.row(in, y / op.stride_y) + y % op.stride_y * op.stride_x * bytes;
  for (uint32_t x = 0; x < out.width; ++x, to += out.pixel_bytes()) {
    std::memmove(
        to, from + x / op.stride_x * in.pixel_bytes() + x % op.stride_x * bytes, bytes);
  }
}

void bilinear_row(const Run& run, const Op& op, uint32_t y) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const Between ys = between(y, op.stride_y, in.height);
  const uint8_t* const above = run.row(in, ys.first);
  const uint8_t* const below = run.row(in, ys.second);
  const int32_t all_y = 2 * op.stride_y, all_x = 2 * op.stride_x;
  Blend blend;
  blend.half = op.shift == 0 ? 0 : 1 << (op.shift - 1);
  blend.shift = static_cast<int32_t>(op.shift);
  blend.wide = out.type == Type::kWide;
  // 255 * 64 + 2^13 is below 2^15.
  blend.narrow = !blend.wide && all_y * all_x <= 64 && op.shift <= 14;
  uint8_t* to = run.row(out, y);
  for (uint32_t x = 0; x < out.width; ++x, to += out.pixel_bytes()) {
    const Between xs = between(x, op.stride_x, in.width);
    const size_t left = xs.first * in.pixel_bytes(),
                 right = xs.second * in.pixel_bytes();
    blend.weight[0] = (all_y - ys.weight) * (all_x - xs.weight);
    blend.weight[1] = (all_y - ys.weight) * xs.weight;
    blend.weight[2] = ys.weight * (all_x - xs.weight);
    blend.weight[3] = ys.weight * xs.weight;
    const uint8_t* const corners[4] = {above + left, above + right, below + left,
                                       below + right};
    run.kernels.blend(blend, corners, in.channels, to);
  }
}

using ComputeRow = void (*)(const Run& run, const Op& op, uint32_t y);

DqaStatus each_row(const Run& run, size_t index, Rows rows, ComputeRow compute) {
  return run.each_row(rows, [&](uint32_t y) {
    compute(run, run.plan.ops[index], y);
    return DQA_OK;
  });
}

}  // namespace

DqaStatus nearest(Run& run, size_t index, Rows rows) {
  return each_row(run, index, rows, nearest_row);
}

DqaStatus bilinear(Run& run, size_t index, Rows rows) {
  return each_row(run, index, rows, bilinear_row);
}

DqaStatus depth_to_space(Run& run, size_t index, Rows rows) {
  return each_row(run, index, rows, depth_to_space_row);
}

}  // namespace dqa
