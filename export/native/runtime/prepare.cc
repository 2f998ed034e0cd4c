// What convolutions need to know of their weights.
#include "prepare.h"

#include <utility>

namespace dqa {
namespace {

// The most steps of a sequence whose sums stay within int16, wherever they begin.
// `step(i, up, down)` adds the largest sum and the smallest that step i can give.
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

}  // namespace

Prepared prepare_conv(const Plan& plan, const Op& op) {
  const Buffer& in = plan.buffers[plan.links[op.first_link].buffer];
  const Buffer& out = plan.buffers[op.output];
  const size_t groups = (in.channels + kGroup - 1) / kGroup;
  const size_t count = size_t{op.taps_y} * op.taps_x * groups;
  const size_t blocks = blocks_of(out);
  Prepared made;
  made.start.resize(blocks * kBlock);
  made.interval.resize(blocks);
  for (size_t b = 0; b < blocks; ++b) {
    const int8_t* const weights =
        reinterpret_cast<const int8_t*>(plan.constants + op.weights) +
        b * count * kBlock * kGroup;
    uint32_t interval = static_cast<uint32_t>(count);
    for (size_t o = 0; o < kBlock; ++o) {
      int32_t sum = 0;
      for (size_t g = 0; g < count; ++g) {
        for (size_t i = 0; i < kGroup; ++i) {
          sum += weights[(g * kBlock + o) * kGroup + i];
        }
      }
      made.start[b * kBlock + o] = -sum * in.zero;
      for (size_t pair = 0; pair < kGroup && in.type == Type::kCodes; pair += 2) {
        const uint32_t fits = longest_run(count, [&](size_t g) {
          const int8_t* const w = weights + (g * kBlock + o) * kGroup + pair;
          const Reach first = reach(w[0], in.peak), second = reach(w[1], in.peak);
          return Reach{first.first + second.first, first.second + second.second};
        });
        if (fits < interval) interval = fits;
      }
    }
    made.interval[b] = interval;
  }
  return made;
}

Prepared prepare_depthwise(const Plan& plan, const Op& op) {
  const Buffer& in = plan.buffers[plan.links[op.first_link].buffer];
  const size_t taps = size_t{op.taps_y} * op.taps_x;
  const size_t padded = blocks_of(in) * kBlock;
  const int8_t* const weights =
      reinterpret_cast<const int8_t*>(plan.constants + op.weights);
  Prepared made;
  made.start.resize(padded);
  made.interval.assign(1, static_cast<uint32_t>(taps));
  for (size_t c = 0; c < padded; ++c) {
    int32_t sum = 0;
    for (size_t t = 0; t < taps; ++t) sum += weights[t * padded + c];
    made.start[c] = -sum * in.zero;
    const uint32_t fits = longest_run(
        taps, [&](size_t t) { return reach(weights[t * padded + c], in.peak); });
    if (fits < made.interval[0]) made.interval[0] = fits;
  }
  return made;
}

Prepared prepare(const Plan& plan, const Op& op) {
  switch (op.code) {
    case Code::kConv: return prepare_conv(plan, op);
    case Code::kDepthwise: return prepare_depthwise(plan, op);
    default: return {};
  }
}

}  // namespace dqa
