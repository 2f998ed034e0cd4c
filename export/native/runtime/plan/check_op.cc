#include <algorithm>
#include <cstring>

#include "runtime/ops/winograd.h"
#include "runtime/plan/check.h"

namespace dqa {
namespace {

bool same_size(const Buffer& a, const Buffer& b) {
  return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

bool same_codes(const Buffer& a, const Buffer& b) {
  return a.type == b.type && a.zero == b.zero && a.slot == b.slot;
}

// An array of a number for each output channel, in whole blocks.
bool array(const Plan& plan, uint32_t offset, const Buffer& output) {
  const uint64_t blocks = blocks_of(output);
  return offset % 4 == 0 && is_constant(plan, offset, blocks * kBlock * sizeof(float));
}

// The columns and rows that taps touch must be there, or be zeros.
const char* broken_window(const Op& op, const Buffer& in, const Buffer& out,
                          bool zeros) {
  if (op.taps_y < 1 || op.taps_x < 1 || op.stride_y < 1 || op.stride_x < 1 ||
      op.dilation_y < 1 || op.dilation_x < 1 || op.top < 0 || op.left < 0) {
    return "its window is empty";
  }
  const int64_t reach_y = int64_t{op.taps_y - 1} * op.dilation_y,
                reach_x = int64_t{op.taps_x - 1} * op.dilation_x;
  const int64_t last_y = int64_t{out.height - 1} * op.stride_y - op.top,
                last_x = int64_t{out.width - 1} * op.stride_x - op.left;
  if (zeros) {
    const bool rows = op.top == 0 && last_y + reach_y < in.height;
    if (!rows && !in.zero_row) return "its input has no row of zeros";
    if (op.left > in.left ||
        last_x + reach_x >= int64_t{in.width} + int64_t{in.right}) {
      return "its window reaches past the columns of its input";
    }
    return nullptr;
  }
  if (op.dilation_y != 1 || op.dilation_x != 1 || op.top > reach_y ||
      op.left > reach_x || last_y >= in.height || last_x >= in.width) {
    return "a window covers no input";
  }
  return nullptr;
}

// Whether a code is shifted by 0 to 7 bits: 2 to the power of that as a float.
bool is_shift(float power) {
  uint32_t bits;
  std::memcpy(&bits, &power, sizeof bits);
  return (bits & 0x7fffff) == 0 && bits >> 23 >= 127 && bits >> 23 <= 134;
}

// The arrays and addends that turn a sum into a code.
const char* broken_epilogue(const Plan& plan, const Op& op, size_t operands) {
  const Buffer& out = plan.buffers[op.output];
  for (const uint32_t offset : {op.bias, op.low, op.high}) {
    if (!array(plan, offset, out)) return "its arrays lie outside the constants";
  }
  if ((op.code != OpCode::kAdd && !array(plan, op.multiplier, out)) ||
      (out.type == Type::kCodes && !array(plan, op.power, out))) {
    return "its arrays lie outside the constants";
  }
  if (out.type == Type::kCodes) {
    const float* const powers = plan.floats(op.power);
    if (!std::all_of(powers, powers + out.channels, is_shift)) {
      return "its powers are not powers of two";
    }
  }
  if (op.link_count - operands > 2) return "it has more than two addends";
  bool scaled = false;
  for (size_t k = 0; k < op.link_count; ++k) {
    const Buffer& b = plan.buffers[plan.link(op, k).buffer];
    scaled = scaled || b.slot != kNone;
    if (k < operands) continue;
    if (!is_line_buffer(b) || plan.link(op, k).addend != 1 || !same_size(b, out) ||
        !array(plan, plan.link(op, k).value, out)) {
      return "an addend does not fit";
    }
  }
  if (out.slot != kNone || (out.kind != Kind::kOutput && !is_line_buffer(out))) {
    return "its output is of the wrong kind";
  }
  const uint64_t arrays = 1u + (op.link_count - operands);
  const uint64_t bytes = arrays * (blocks_of(out)) * kBlock * sizeof(float);
  if (scaled != (op.scratch != kNone) ||
      (scaled && (op.scratch % 16 != 0 ||
                  op.scratch + bytes + plan.row_scratch + kSlack > plan.arena))) {
    return "its scratch lies outside the arena";
  }
  return nullptr;
}

// A convolution in tiles: they reach a row and a column further than what they are for.
const char* broken_tiles(const Plan& plan, const Op& op, const Buffer& in,
                         const Buffer& out) {
  if (!is_line_buffer(in) || !is_line_buffer(out) || plan.link(op, 0).addend ||
      in.type != Type::kCodes || op.scratch != kNone || in.peak > kTilePeak ||
      in.zero > in.peak || in.channels > kTileChannels) {
    return "tiles are of codes up to 63, in line buffers";
  }
  if (op.taps_y != 3 || op.taps_x != 3 || op.stride_y != 1 || op.stride_x != 1 ||
      op.dilation_y != 1 || op.dilation_x != 1) {
    return "tiles are of 3x3 taps without strides or gaps";
  }
  Buffer whole = out;
  whole.width = tiles_of(out.width) * kTileSide;
  if (const char* rule = broken_window(op, in, whole, true)) return rule;
  const uint64_t groups = groups_of(in);
  const uint64_t blocks = blocks_of(out);
  const uint64_t bytes = kPositions * blocks * groups * kBlock * kGroup;
  return is_constant(plan, op.weights, bytes) ? nullptr
                                              : "its weights are of the wrong size";
}

}  // namespace

const char* broken_rule(const Plan& plan, const Op& op) {
  const Buffer& in = plan.input(op);
  const Buffer& out = plan.buffers[op.output];
  const bool between_line_buffers = is_line_buffer(in) && is_line_buffer(out);
  const bool sums = op.code == OpCode::kConv || op.code == OpCode::kDepthwise ||
                    op.code == OpCode::kAdd || op.code == OpCode::kAverage ||
                    op.code == OpCode::kWinograd;
  if (!sums && op.scratch != kNone) return "only sums have scratch";
  switch (op.code) {
    case OpCode::kQuantizeInput:
      if (op.link_count != 1 || in.kind != Kind::kInput || !is_line_buffer(out) ||
          out.type != Type::kWide || !same_size(in, out) || out.slot == kNone ||
          plan.inputs[out.slot] != plan.link(op, 0).buffer || op.shift < 1 ||
          op.shift > 32767 || (op.weights != kNone && !array(plan, op.weights, out)) ||
          (op.multiplier != kNone && !array(plan, op.multiplier, out))) {
        return "an input is read into wide codes of its size";
      }
      return nullptr;
    case OpCode::kLoad:
    case OpCode::kStore: {
      const bool load = op.code == OpCode::kLoad;
      const Buffer& line_buffer = load ? out : in;
      const Buffer& stored = load ? in : out;
      if (op.link_count != 1 || !is_line_buffer(line_buffer) ||
          stored.kind != Kind::kStored || !same_size(in, out) || !same_codes(in, out)) {
        return "rows move between a line buffer and a store of one size";
      }
      return nullptr;
    }
    case OpCode::kConv:
    case OpCode::kDepthwise: {
      const bool depthwise = op.code == OpCode::kDepthwise;
      if (!is_line_buffer(in) || plan.link(op, 0).addend)
        return "its input is not a line buffer";
      if (const char* rule = broken_window(op, in, out, true)) return rule;
      const uint64_t taps = uint64_t{op.taps_y} * op.taps_x;
      const uint64_t groups = groups_of(in);
      const uint64_t blocks = blocks_of(out);
      const uint64_t bytes =
          depthwise ? taps * blocks * kBlock : blocks * taps * groups * kBlock * kGroup;
      if (op.taps_y > kMaxTaps) return "its window has too many rows";
      if (depthwise && in.channels != out.channels) {
        return "a depthwise convolution keeps the number of channels";
      }
      if (!is_constant(plan, op.weights, bytes))
        return "its weights are of the wrong size";
      return broken_epilogue(plan, op, 1);
    }
    case OpCode::kWinograd:
      if (const char* rule = broken_tiles(plan, op, in, out)) return rule;
      return broken_epilogue(plan, op, 1);
    case OpCode::kAdd: return broken_epilogue(plan, op, 0);
    case OpCode::kAverage:
      if (!is_line_buffer(in) || plan.link(op, 0).addend ||
          in.channels != out.channels) {
        return "an average keeps the number of channels";
      }
      if (const char* rule = broken_window(op, in, out, false)) return rule;
      return broken_epilogue(plan, op, 1);
    case OpCode::kMaxPool:
      if (op.link_count != 1 || !between_line_buffers || in.channels != out.channels ||
          !same_codes(in, out)) {
        return "a maximum keeps channels and codes";
      }
      return broken_window(op, in, out, false);
    case OpCode::kNearest:
    case OpCode::kBilinear: {
      const bool nearest = op.code == OpCode::kNearest;
      if (op.link_count != 1 || !between_line_buffers || in.channels != out.channels ||
          op.stride_y < 1 || op.stride_x < 1 ||
          uint64_t{in.height} * op.stride_y != out.height ||
          uint64_t{in.width} * op.stride_x != out.width) {
        return "an image grows by whole factors";
      }
      if (nearest ? !same_codes(in, out)
                  : in.type != Type::kCodes || in.zero != 0 || out.zero != 0 ||
                        op.stride_y > 8 || op.stride_x > 8 || op.shift > 16) {
        return "it cannot turn its input's codes into its output's";
      }
      return nullptr;
    }
    case OpCode::kConcat:
      for (size_t k = 0; k < op.link_count; ++k) {
        const Buffer& part = plan.buffers[plan.link(op, k).buffer];
        if (!is_line_buffer(part) || !is_line_buffer(out) || !same_codes(part, out) ||
            part.height != out.height || part.width != out.width ||
            uint64_t{plan.link(op, k).value} + part.channels > out.channels) {
          return "what is joined must have one size and one kind of codes";
        }
      }
      return nullptr;
    case OpCode::kDepthToSpace:
      if (op.link_count != 1 || !between_line_buffers || !same_codes(in, out) ||
          op.stride_y < 1 || op.stride_x < 1 ||
          uint64_t{out.channels} * op.stride_y * op.stride_x != in.channels ||
          (out.height + op.stride_y - 1) / op.stride_y != in.height ||
          (out.width + op.stride_x - 1) / op.stride_x != in.width) {
        return "channels become pixels by whole factors";
      }
      return nullptr;
  }
  return "its code is unknown";
}

}  // namespace dqa
