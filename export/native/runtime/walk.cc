#include "walk.h"

namespace dqa {

Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output) {
  const Buffer& in = plan.buffers[link.buffer];
  const bool windowed = op.code == Code::kConv || op.code == Code::kDepthwise ||
                        op.code == Code::kAverage || op.code == Code::kMaximum;
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

}  // namespace dqa
