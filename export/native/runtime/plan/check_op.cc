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
  if ((operands > 0 && !array(plan, op.multiplier, out)) ||
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
    if (!is_line_buffer(b) || !same_size(b, out) ||
        !array(plan, plan.link(op, k).value, out)) {
      return "an addend does not fit";
    }
  }
  if (out.slot != kNone || (out.kind != Kind::kOutput && !is_line_buffer(out))) {
    return "its output is of the wrong kind";
  }
  const uint64_t arrays = 1u + (op.link_count - operands);
  const uint64_t bytes = arrays * blocks_of(out) * kBlock * sizeof(float);
  if (scaled != (op.scratch != kNone) ||
      (scaled && (op.scratch % 16 != 0 || op.scratch + bytes + kSlack > plan.arena))) {
    return "its scratch lies outside the arena";
  }
  return nullptr;
}

// Whether the weights of an op lie in the constants.
bool has_weights(const Plan& plan, const Op& op, const Buffer& in, const Buffer& out) {
  const uint64_t taps = uint64_t{op.taps_y} * op.taps_x;
  const uint64_t dense = uint64_t{blocks_of(out)} * kBlock * groups_of(in) * kGroup;
  switch (traits_of(op.code).weights) {
    case WeightsLayout::kNone: return true;
    case WeightsLayout::kChannels:
      return op.weights == kNone || array(plan, op.weights, out);
    case WeightsLayout::kDense: return is_constant(plan, op.weights, dense * taps);
    case WeightsLayout::kDepthwise:
      return is_constant(plan, op.weights, taps * blocks_of(out) * kBlock);
    case WeightsLayout::kTiles:
      return is_constant(plan, op.weights, dense * kPositions);
    case WeightsLayout::kKnots:
      return is_constant(plan, op.weights, kKnots * sizeof(int16_t));
    case WeightsLayout::kSources:
      return is_constant(plan, op.weights, out.channels * sizeof(uint16_t));
  }
  return false;
}

// How many of an op's links are operands; the links after them are addends.
size_t operands_of(const Op& op) {
  switch (traits_of(op.code).operands) {
    case Operands::kNone: return 0;
    case Operands::kOne: return 1;
    case Operands::kTwo: return 2;
    case Operands::kMany: break;
  }
  return op.link_count;
}

const char* moved_rule(const Buffer& line_buffer, const Buffer& stored) {
  if (!is_line_buffer(line_buffer) || stored.kind != Kind::kStored ||
      !same_size(line_buffer, stored) || !same_codes(line_buffer, stored)) {
    return "rows move between a line buffer and a store of one size";
  }
  return nullptr;
}

const char* enlarged_rule(const Op& op, const Buffer& in, const Buffer& out) {
  if (!is_line_buffer(in) || !is_line_buffer(out) || in.channels != out.channels ||
      op.stride_y < 1 || op.stride_x < 1 ||
      uint64_t{in.height} * op.stride_y != out.height ||
      uint64_t{in.width} * op.stride_x != out.width) {
    return "an image grows by whole factors";
  }
  return nullptr;
}

using Rule = const char* (*)(const Plan&, const Op&, const Buffer& in,
                             const Buffer& out);

#define DQA_OP(code, function, ...) function##_rule,
constexpr Rule kRules[] = {DQA_OP_TABLE(DQA_OP)};
#undef DQA_OP

}  // namespace

const char* quantize_input_rule(const Plan& plan, const Op& op, const Buffer& in,
                                const Buffer& out) {
  if (in.kind != Kind::kInput || !is_line_buffer(out) || out.type != Type::kWide ||
      !same_size(in, out) || out.slot == kNone ||
      plan.inputs[out.slot] != plan.link(op, 0).buffer || op.shift < 1 ||
      op.shift > 32767 ||
      (op.multiplier != kNone && !array(plan, op.multiplier, out))) {
    return "an input is read into wide codes of its size";
  }
  return nullptr;
}

const char* load_rule(const Plan&, const Op&, const Buffer& in, const Buffer& out) {
  return moved_rule(out, in);
}

const char* store_rule(const Plan&, const Op&, const Buffer& in, const Buffer& out) {
  return moved_rule(in, out);
}

const char* conv_rule(const Plan&, const Op& op, const Buffer& in, const Buffer& out) {
  if (!is_line_buffer(in)) return "its input is not a line buffer";
  if (op.taps_y > kMaxTaps) return "its window has too many rows";
  return broken_window(op, in, out, true);
}

const char* depthwise_rule(const Plan& plan, const Op& op, const Buffer& in,
                           const Buffer& out) {
  if (in.channels != out.channels) {
    return "a depthwise convolution keeps the number of channels";
  }
  return conv_rule(plan, op, in, out);
}

// Tiles reach a row and a column further than the outputs that they are for.
const char* winograd_rule(const Plan&, const Op& op, const Buffer& in,
                          const Buffer& out) {
  if (!is_line_buffer(in) || !is_line_buffer(out) || in.type != Type::kCodes ||
      op.scratch != kNone || in.peak > kTilePeak || in.zero > in.peak ||
      in.channels > kTileChannels) {
    return "tiles are of codes up to 63, in line buffers";
  }
  if (op.taps_y != 3 || op.taps_x != 3 || op.stride_y != 1 || op.stride_x != 1 ||
      op.dilation_y != 1 || op.dilation_x != 1) {
    return "tiles are of 3x3 taps without strides or gaps";
  }
  Buffer whole = out;
  whole.width = tiles_of(out.width) * kTileSide;
  return broken_window(op, in, whole, true);
}

const char* add_rule(const Plan&, const Op&, const Buffer&, const Buffer&) {
  return nullptr;
}

const char* average_rule(const Plan&, const Op& op, const Buffer& in,
                         const Buffer& out) {
  if (!is_line_buffer(in) || in.channels != out.channels) {
    return "an average keeps the number of channels";
  }
  return broken_window(op, in, out, false);
}

const char* max_pool_rule(const Plan&, const Op& op, const Buffer& in,
                          const Buffer& out) {
  if (!is_line_buffer(in) || !is_line_buffer(out) || in.channels != out.channels ||
      !same_codes(in, out)) {
    return "a maximum keeps channels and codes";
  }
  return broken_window(op, in, out, false);
}

const char* nearest_rule(const Plan&, const Op& op, const Buffer& in,
                         const Buffer& out) {
  if (!same_codes(in, out)) return "it keeps its input's codes";
  return enlarged_rule(op, in, out);
}

const char* bilinear_rule(const Plan&, const Op& op, const Buffer& in,
                          const Buffer& out) {
  if (in.type != Type::kCodes || in.zero != 0 || out.zero != 0 || op.stride_y > 8 ||
      op.stride_x > 8 || op.shift > 16) {
    return "it cannot turn its input's codes into its output's";
  }
  return enlarged_rule(op, in, out);
}

const char* concat_rule(const Plan& plan, const Op& op, const Buffer&,
                        const Buffer& out) {
  for (size_t k = 0; k < op.link_count; ++k) {
    const Buffer& part = plan.buffers[plan.link(op, k).buffer];
    if (!is_line_buffer(part) || !is_line_buffer(out) || !same_codes(part, out) ||
        part.height != out.height || part.width != out.width ||
        uint64_t{plan.link(op, k).value} + part.channels > out.channels) {
      return "what is joined must have one size and one kind of codes";
    }
  }
  return nullptr;
}

const char* depth_to_space_rule(const Plan&, const Op& op, const Buffer& in,
                                const Buffer& out) {
  if (!is_line_buffer(in) || !is_line_buffer(out) || !same_codes(in, out) ||
      op.stride_y < 1 || op.stride_x < 1 ||
      uint64_t{out.channels} * op.stride_y * op.stride_x != in.channels ||
      (out.height + op.stride_y - 1) / op.stride_y != in.height ||
      (out.width + op.stride_x - 1) / op.stride_x != in.width) {
    return "channels become pixels by whole factors";
  }
  return nullptr;
}

const char* broken_rule(const Plan& plan, const Op& op) {
  const Buffer& in = plan.input(op);
  const Buffer& out = plan.buffers[op.output];
  const OpTraits& traits = traits_of(op.code);
  const size_t operands = operands_of(op);
  if (op.link_count < operands || (!traits.requantizes && op.link_count > operands)) {
    return "it has the wrong number of inputs";
  }
  for (size_t k = 0; k < op.link_count; ++k) {
    if (plan.link(op, k).addend != (k < operands ? 0 : 1)) {
      return "its operands must come before its addends";
    }
  }
  if (!traits.requantizes && op.scratch != kNone) return "only sums have scratch";
  if (op.rows < 1) return "it computes no rows";
  const Rule rule = kRules[static_cast<size_t>(op.code)];
  if (const char* broken = rule(plan, op, in, out)) return broken;
  if (!has_weights(plan, op, in, out)) return "its weights are of the wrong size";
  return traits.requantizes ? broken_epilogue(plan, op, operands) : nullptr;
}

}  // namespace dqa
