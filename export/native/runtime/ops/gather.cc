// GATHER: some pixels and channels of a tensor, in any order of channels.
#include <algorithm>
#include <cstring>

#include "runtime/ops/ops.h"
#include "runtime/plan/check.h"

namespace dqa {
namespace {

// The channel that each channel of the output comes from.
uint16_t source_of(const Plan& plan, const Op& op, size_t channel) {
  uint16_t source;
  std::memcpy(&source, plan.constants + op.weights + channel * sizeof source,
              sizeof source);
  return source;
}

// Some channels of the output that are neighbours in the input too.
struct Neighbours {
  size_t from, to, count;
};

Neighbours neighbours_at(const Plan& plan, const Op& op, size_t first,
                         size_t channels) {
  const size_t from = source_of(plan, op, first);
  size_t count = 1;
  while (first + count < channels &&
         source_of(plan, op, first + count) == from + count) {
    ++count;
  }
  return {from, first, count};
}

// Moves a few channels of pixels; rows of a hostile plan may overlap.
template <class Code>
void move_codes(size_t pixels, const uint8_t* from, size_t from_step, uint8_t* to,
                size_t to_step) {
  for (size_t p = 0; p < pixels; ++p, from += from_step, to += to_step) {
    Code code;
    std::memcpy(&code, from, sizeof code);
    std::memcpy(to, &code, sizeof code);
  }
}

void gather_row(const Run& run, const Op& op, uint32_t y) {
  const Buffer &in = run.input(op), &out = run.buffer(op.output);
  const size_t bytes = in.element_bytes();
  const uint8_t* const from = run.row_or_zeros(in, int64_t{y} * op.stride_y - op.top) -
                              int64_t{op.left} * static_cast<int64_t>(in.pixel_bytes());
  uint8_t* const to = run.row(out, y);
  const size_t step = op.stride_x * in.pixel_bytes();
  for (size_t c = 0; c < out.channels;) {
    const Neighbours part = neighbours_at(run.plan, op, c, out.channels);
    const uint8_t* const first = from + part.from * bytes;
    uint8_t* const moved = to + part.to * bytes;
    if (part.count > 1) {
      copy_pixels(first, step, moved, out.pixel_bytes(), part.count * bytes, out.width);
    } else if (bytes == 1) {
      move_codes<uint8_t>(out.width, first, step, moved, out.pixel_bytes());
    } else {
      move_codes<uint16_t>(out.width, first, step, moved, out.pixel_bytes());
    }
    c += part.count;
  }
}

}  // namespace

const char* gather_rule(const Plan& plan, const Op& op, const Buffer& in,
                        const Buffer& out) {
  if (!is_line_buffer(in) || !is_line_buffer(out) || in.type != out.type ||
      in.type == Type::kFloat || in.zero != out.zero || in.slot != out.slot) {
    return "what is gathered keeps its codes";
  }
  if (op.taps_y != 1 || op.taps_x != 1 || op.stride_y < 1 || op.stride_x < 1) {
    return "it gathers with a single tap";
  }
  const int64_t last_x = int64_t{out.width - 1} * op.stride_x - op.left;
  if (op.left > in.left || last_x >= int64_t{in.width} + int64_t{in.right}) {
    return "its window reaches past the columns of its input";
  }
  if (!is_constant(plan, op.weights, out.channels * sizeof(uint16_t))) {
    return "its weights are of the wrong size";
  }
  for (size_t c = 0; c < out.channels; ++c) {
    if (source_of(plan, op, c) >= in.channels) return "a channel that is not there";
  }
  return nullptr;
}

DqaStatus gather(Run& run, size_t index, Rows rows) {
  return run.each_row(rows, [&](uint32_t y) {
    gather_row(run, run.plan.ops[index], y);
    return DQA_OK;
  });
}

}  // namespace dqa
