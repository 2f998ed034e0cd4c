// What is computed once from weights.
#include "runtime/ops/prepare.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/ops/winograd.h"

namespace dqa {
namespace {

// The largest number of consecutive steps whose sum always stays within int16, wherever
// they begin. `step(i)` is the largest and the smallest sum of step i.
template <class Step>
uint32_t longest_run(size_t count, Step step) {
  int64_t up = 0, down = 0;
  size_t begin = 0;
  size_t longest = count;
  for (size_t end = 0; end < count; ++end) {
    const auto grown = step(end);
    up += grown.first;
    down += grown.second;
    while (up > 32767 || down < -32768) {
      if (end - begin < longest) longest = end - begin;
      if (begin > end || longest == 0) return 0;
      const auto gone = step(begin++);
      up -= gone.first;
      down -= gone.second;
    }
  }
  return static_cast<uint32_t>(longest);
}

using Reach = std::pair<int64_t, int64_t>;

Reach reach(int weight, int64_t peak) {
  return weight > 0 ? Reach{weight * peak, 0} : Reach{0, weight * peak};
}

// How the groups of a block's weights can be cut so that neither sum of two products
// leaves int16 on the way.
std::vector<uint32_t> accumulation_spans(const int8_t* weights, size_t count,
                                         int64_t peak) {
  constexpr size_t kPairs = kBlock * kGroup / 2;
  std::vector<uint32_t> spans;
  Reach sums[kPairs] = {};
  uint32_t length = 0;
  for (size_t g = 0; g < count; ++g, weights += kBlock * kGroup) {
    Reach grown[kPairs], own[kPairs];
    bool fits = true;
    for (size_t i = 0; i < kPairs; ++i) {
      const Reach first = reach(weights[2 * i], peak),
                  second = reach(weights[2 * i + 1], peak);
      own[i] = {first.first + second.first, first.second + second.second};
      if (own[i].first > 32767 || own[i].second < -32768) return {};
      grown[i] = {sums[i].first + own[i].first, sums[i].second + own[i].second};
      fits = fits && grown[i].first <= 32767 && grown[i].second >= -32768;
    }
    if (!fits) {
      spans.push_back(length);
      length = 0;
    }
    std::copy(fits ? grown : own, (fits ? grown : own) + kPairs, sums);
    ++length;
  }
  spans.push_back(length);
  spans.push_back(1);  // kernels look one ahead
  return spans;
}

std::vector<PlainCodes> plain_codes(const Plan& plan, const Op& op,
                                    const RuntimeKernels& kernels) {
  const Buffer& out = plan.buffers[op.output];
  if (!kernels.wants_plain || out.type != Type::kCodes) return {};
  std::vector<PlainCodes> plain(blocks_of(out));
  const bool has_sign = out.zero != 0;
  for (PlainCodes& block : plain) {
    std::fill(block.zero, block.zero + kBlock, out.zero);
    block.has_sign = has_sign;
  }
  for (size_t c = 0; c < out.channels; ++c) {
    const float low = std::nearbyint(plan.floats(op.low)[c]),
                high = std::nearbyint(plan.floats(op.high)[c]),
                power = plan.floats(op.power)[c];
    int exponent = 0;
    const bool shifts = std::frexp(power, &exponent) == 0.5f && power >= 1.0f;
    const bool fits = has_sign ? low >= -128 && low <= high && high <= 127
                               : low == 0 && high >= 0 && high * power <= 255;
    if (!fits || !shifts) return {};
    PlainCodes& block = plain[c / kBlock];
    block.high[c % kBlock] = static_cast<uint8_t>(static_cast<int>(high));
    block.low[c % kBlock] = static_cast<int8_t>(low);
    block.shift[c % kBlock] = static_cast<int8_t>(exponent - 1);
  }
  return plain;
}

Prepared prepare_conv(const Plan& plan, const Op& op, const RuntimeKernels& kernels) {
  const Buffer& in = plan.input(op);
  const size_t groups = groups_of(in);
  const size_t count = size_t{op.taps_y} * op.taps_x * groups;
  const size_t blocks = blocks_of(plan.buffers[op.output]);
  const bool codes = in.type == Type::kCodes;
  Prepared prepared;
  prepared.start.resize(blocks * kBlock);
  for (size_t b = 0; b < blocks; ++b) {
    const int8_t* const weights =
        reinterpret_cast<const int8_t*>(plan.constants + op.weights) +
        b * count * kBlock * kGroup;
    for (size_t o = 0; o < kBlock; ++o) {
      int32_t sum = 0;
      for (size_t g = 0; g < count; ++g) {
        for (size_t i = 0; i < kGroup; ++i) {
          sum += weights[(g * kBlock + o) * kGroup + i];
        }
      }
      const int32_t less = codes && in.peak <= 127 ? 0 : kernels.less;
      prepared.start[b * kBlock + o] = sum * (less - (codes ? in.zero : 0));
    }
    if (!kernels.conv_wants_spans || !codes) continue;
    prepared.spans.push_back(accumulation_spans(weights, count, in.peak));
  }
  prepared.plain = plain_codes(plan, op, kernels);
  return prepared;
}

// For each position of a tile: the correction for what its inputs are shifted by.
Prepared prepare_winograd(const Plan& plan, const Op& op,
                          const RuntimeKernels& kernels) {
  const Buffer& in = plan.input(op);
  const size_t groups = groups_of(in);
  const size_t blocks = blocks_of(plan.buffers[op.output]);
  const auto* weights = reinterpret_cast<const int8_t*>(plan.constants + op.weights);
  constexpr size_t kMiddle = 5;  // where four codes are added
  Prepared prepared;
  prepared.plain = plain_codes(plan, op, kernels);
  prepared.start.resize(kPositions * blocks * kBlock);
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t p = 0; p < kPositions; ++p) {
      int32_t by = kernels.tile_shift;
      if (p == kMiddle) by += 4 * int32_t{in.zero} - 2 * int32_t{kTilePeak};
      int32_t* const start = prepared.start.data() + (p * blocks + b) * kBlock;
      for (size_t i = 0; i < groups * kBlock * kGroup; ++i) {
        start[i / kGroup % kBlock] -= by * *weights++;
      }
    }
  }
  return prepared;
}

constexpr size_t kTogether = 32;

// The channel at a place of interleaved arrays.
size_t interleaved_channel(size_t place) {
  return 8 * (place / 4 % 4) + 4 * (place / 16) + place % 4;
}

// Weights for 32 channels at a time; see `DepthwiseRow`.
std::vector<int8_t> interleave(const Op& op, const int8_t* weights, size_t padded) {
  constexpr size_t kTaps = 4;
  const size_t fours = (op.taps_y + kTaps - 1) / kTaps;
  std::vector<int8_t> interleaved;
  interleaved.reserve((padded + kTogether - 1) / kTogether * kTogether * kTaps * fours *
                      op.taps_x);
  for (size_t first = 0; first < padded; first += kTogether) {
    for (size_t x = 0; x < op.taps_x; ++x) {
      for (size_t y = 0; y < kTaps * fours; y += kTaps) {
        for (size_t i = 0; i < kTogether * kTaps; ++i) {
          const size_t tap = y + i % kTaps;
          const size_t channel = first + interleaved_channel(i / kTaps);
          const bool is_there = channel < padded && tap < op.taps_y;
          interleaved.push_back(
              is_there ? weights[(tap * op.taps_x + x) * padded + channel] : int8_t{0});
        }
      }
    }
  }
  return interleaved;
}

// The longest spans of rows that serve all channels.
void find_spans(const Op& op, const int8_t* weights, size_t padded, int64_t peak,
                Prepared* prepared) {
  const size_t row = op.taps_x * padded;
  for (uint32_t rows = op.taps_y; rows > 0; --rows) {
    const size_t spans = (op.taps_y + rows - 1) / rows;
    std::vector<int16_t> base(spans * padded);
    std::vector<int32_t> start = prepared->start;
    bool fits = true;
    for (size_t i = 0; fits && i < spans * padded; ++i) {
      const size_t c = i % padded, span = i / padded;
      Reach all = {0, 0};
      for (size_t w = span * rows * row + c;
           w < std::min<size_t>((span + 1) * rows, op.taps_y) * row; w += padded) {
        const Reach own = reach(weights[w], peak);
        all = {all.first + own.first, all.second + own.second};
      }
      fits = all.first - all.second <= 65535;
      base[(c / kBlock * spans + span) * kBlock + c % kBlock] =
          static_cast<int16_t>(static_cast<uint16_t>(-all.second));
      start[c] += static_cast<int32_t>(all.second);
    }
    if (!fits) continue;
    prepared->span_rows = rows;
    prepared->base = std::move(base);
    prepared->span_start = std::move(start);
    return;
  }
}

Prepared prepare_depthwise(const Plan& plan, const Op& op,
                           const RuntimeKernels& kernels) {
  const Buffer& in = plan.input(op);
  const size_t taps = size_t{op.taps_y} * op.taps_x;
  const size_t padded = blocks_of(in) * kBlock;
  const int8_t* const weights =
      reinterpret_cast<const int8_t*>(plan.constants + op.weights);
  Prepared prepared;
  prepared.start.resize(padded);
  prepared.plain = plain_codes(plan, op, kernels);
  prepared.interval = static_cast<uint32_t>(taps);
  for (size_t c = 0; c < padded; ++c) {
    int32_t sum = 0;
    for (size_t t = 0; t < taps; ++t) sum += weights[t * padded + c];
    prepared.start[c] = in.type == Type::kCodes ? -sum * in.zero : 0;
    const uint32_t fits = longest_run(
        taps, [&](size_t t) { return reach(weights[t * padded + c], in.peak); });
    if (fits < prepared.interval) prepared.interval = fits;
  }
  const bool plain = in.type == Type::kCodes && op.scratch == kNone &&
                     op.link_count == 1 && plan.buffers[op.output].type == Type::kCodes;
  if (kernels.wants_spans && in.type == Type::kCodes) {
    find_spans(op, weights, padded, in.peak, &prepared);
  }
  if (plain && in.peak <= kernels.interleaved_peak) {
    prepared.interleaved = interleave(op, weights, padded);
  }
  return prepared;
}

Prepared prepare_input(const Plan& plan, const Op& op) {
  Prepared prepared;
  if (op.weights == kNone && op.multiplier == kNone) return prepared;
  const Buffer& in = plan.input(op);
  const size_t values = size_t{in.width} * in.channels;
  const auto whole = [&](uint32_t offset, float missing) {
    std::vector<float> row(values, missing);
    for (size_t i = 0; offset != kNone && i < values; ++i) {
      row[i] = plan.floats(offset)[i % in.channels];
    }
    return row;
  };
  prepared.factors = whole(op.weights, 1.0f);
  prepared.summands = whole(op.multiplier, 0.0f);
  return prepared;
}

}  // namespace

Prepared prepare(const Plan& plan, const Op& op, const RuntimeKernels& kernels) {
  switch (op.code) {
    case OpCode::kQuantizeInput: return prepare_input(plan, op);
    case OpCode::kConv: return prepare_conv(plan, op, kernels);
    case OpCode::kDepthwise: return prepare_depthwise(plan, op, kernels);
    case OpCode::kWinograd: return prepare_winograd(plan, op, kernels);
    default: return {};
  }
}

}  // namespace dqa
