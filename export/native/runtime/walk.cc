#include "walk.h"

namespace dqa {

Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output) {
  const Buffer& in = plan.buffers[link.buffer];
  const bool windowed = op.code == Code::kConv || op.code == Code::kWinograd ||
                        op.code == Code::kDepthwise || op.code == Code::kAverage ||
                        op.code == Code::kMaximum;
  const int64_t height = in.height;
  int64_t first = output.first, end = output.end;
  if (link.addend == 0 && windowed) {
    first = first * op.stride_y - op.top;
    end = (end - 1) * op.stride_y - op.top + (op.taps_y - 1) * op.dilation_y + 1;
  } else if (op.code == Code::kNearest || op.code == Code::kDepthToSpace) {
    first = first / op.stride_y;
    end = (end - 1) / op.stride_y + 1;
  } else if (op.code == Code::kBilinear) {
    // Pixel centres: a row lies between row floor((y + 1/2) / s - 1/2) and the next.
    const int64_t s = op.stride_y;
    first = (2 * first + 1 + s) / (2 * s) - 1;
    end = (2 * (end - 1) + 1 + s) / (2 * s) + 1;
  }
  first = first < 0 ? 0 : first > height - 1 ? height - 1 : first;
  end = end > height ? height : end < first + 1 ? first + 1 : end;
  return {static_cast<uint32_t>(first), static_cast<uint32_t>(end)};
}

void begin_strips(const Plan& plan, const Stage& stage, Strips strips, Progress* at) {
  for (size_t i = 0; i < stage.count; ++i) {
    at->done[plan.ops[stage.first + i].output] = 0;
  }
  if (strips.first == 0) return;
  // From the outputs back; `needed` is where rows end.
  for (size_t i = 0; i < stage.count; ++i) {
    const uint16_t output = plan.ops[stage.first + i].output;
    const Buffer& b = plan.buffers[output];
    const bool ring = b.kind == Kind::kRing;
    at->done[output] =
        ring ? b.height : rows_after(b.height, strips.first, strips.all(stage));
    at->needed[output] = ring ? 0 : rows_after(b.height, strips.end, strips.all(stage));
  }
  for (size_t i = stage.count; i-- > 0;) {
    const Op& op = plan.ops[stage.first + i];
    const Rows needed{at->done[op.output], at->needed[op.output]};
    if (needed.end <= needed.first) continue;
    const Rows output = rows_computed(plan, op, needed);
    at->done[op.output] = output.first;
    at->needed[op.output] = output.end;
    for (size_t k = 0; k < op.link_count; ++k) {
      const Link& link = plan.links[op.first_link + k];
      const Rows read = rows_read(plan, op, link, output);
      at->done[link.buffer] = std::min(at->done[link.buffer], read.first);
      at->needed[link.buffer] = std::max(at->needed[link.buffer], read.end);
    }
  }
}

}  // namespace dqa
