#include "runtime/schedule/row_schedule.h"

namespace dqa {

Progress::Progress(const Plan& plan)
    : done(plan.buffers.size()),
      end(plan.buffers.size()),
      ends(plan.buffers.size()),
      maker(plan.buffers.size()) {
  asked.reserve(plan.ops.size());  // a run allocates nothing: each op asks once
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    maker[plan.ops[i].output] = static_cast<uint16_t>(i);
  }
}

SeenRows rows_seen(const Plan& plan, const Op& op, const Link& link, Rows output) {
  const Buffer& in = plan.buffers[link.buffer];
  const int64_t height = in.height;
  int64_t first = output.first, end = output.end;
  switch (link.addend != 0 ? RowRule::kSame : traits_of(op.code).rows) {
    case RowRule::kSame: break;
    case RowRule::kWindow:
      first = first * op.stride_y - op.top;
      end = (end - 1) * op.stride_y - op.top + (op.taps_y - 1) * op.dilation_y + 1;
      break;
    case RowRule::kEnlarged:
      first = first / op.stride_y;
      end = (end - 1) / op.stride_y + 1;
      break;
    case RowRule::kBetween: {
      // Pixel centres: a row lies between row floor((y + 1/2) / s - 1/2) and the next.
      const int64_t s = op.stride_y;
      first = (2 * first + 1 + s) / (2 * s) - 1;
      end = (2 * (end - 1) + 1 + s) / (2 * s) + 1;
      break;
    }
  }
  if (link.addend == 0 && sees_zeros(op.code)) {
    return {std::min(first, height - 1), std::max<int64_t>(end, 1)};
  }
  first = first < 0 ? 0 : first > height - 1 ? height - 1 : first;
  end = end > height ? height : end < first + 1 ? first + 1 : end;
  return {first, end};
}

Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output) {
  const SeenRows seen = rows_seen(plan, op, link, output);
  const int64_t height = plan.buffers[link.buffer].height;
  const int64_t first = std::max<int64_t>(seen.first, 0);
  const int64_t end = std::max(std::min(seen.end, height), first + 1);
  return {static_cast<uint32_t>(first), static_cast<uint32_t>(end)};
}

Rows rows_made(const Plan& plan, const Op& op, Rows output) {
  const Link& link = plan.link(op, 0);
  const Buffer& in = plan.buffers[link.buffer];
  const SeenRows seen = rows_seen(plan, op, link, output);
  const int64_t height = in.height;
  int64_t before = seen.end - int64_t{output.end - output.first} * op.stride_y;
  if (output.first == 0) {
    before = std::min(before, std::max<int64_t>(seen.first, 0) + in.rows);
  }
  before = std::clamp<int64_t>(before, 0, height);
  const int64_t end = std::clamp(seen.end, before, height);
  return {static_cast<uint32_t>(before), static_cast<uint32_t>(end)};
}

bool ask_for_kept_rows(const Plan& plan, const Op& op, Rows rows, Progress* at) {
  const uint16_t read = plan.link(op, 0).buffer;
  if (!is_grouped(plan.buffers[read])) return false;
  const uint32_t kept = rows_made(plan, op, rows).first;
  if (at->done[read] >= kept) return false;
  at->asked.push_back({at->maker[read], kept});
  return true;
}

void see_group(const Plan& plan, const Op& op, Rows rows, Progress* at) {
  const uint16_t read = plan.link(op, 0).buffer;
  if (is_grouped(plan.buffers[read])) at->done[read] = rows_made(plan, op, rows).end;
}

size_t group_window(const Op& op, const Buffer& in) {
  const size_t rows =
      (size_t{op.rows} - 1) * op.stride_y + (size_t{op.taps_y} - 1) * op.dilation_y + 1;
  const size_t width = size_t{in.left} + in.width + in.right;
  return rows * width * group_channels(in, 0);
}

namespace {

// The first row of every output that a strip of a stage and the strips after it need;
// where they need none, its height. `ends` is room.
void first_rows(const Plan& plan, const Stage& stage, uint32_t strip, uint32_t strips,
                std::vector<uint32_t>* first, std::vector<uint32_t>* ends) {
  for (size_t i = 0; i < stage.count; ++i) {
    const uint16_t output = plan.ops[stage.first + i].output;
    const Buffer& b = plan.buffers[output];
    const bool is_line = is_line_buffer(b);
    (*first)[output] = strip == 0 ? 0
                       : is_line  ? b.height
                                  : rows_after(b.height, strip, strips);
    (*ends)[output] = is_line ? 0 : b.height;
  }
  if (strip == 0) return;
  for (size_t i = stage.count; i-- > 0;) {
    const Op& op = plan.ops[stage.first + i];
    const Rows needed{(*first)[op.output], (*ends)[op.output]};
    if (needed.end <= needed.first) continue;
    const Rows output = rows_computed(plan, op, needed);
    (*first)[op.output] = output.first;
    for (size_t k = 0; k < op.link_count; ++k) {
      const Link& link = plan.link(op, k);
      const Rows read = rows_read(plan, op, link, output);
      (*first)[link.buffer] = std::min((*first)[link.buffer], read.first);
      (*ends)[link.buffer] = std::max((*ends)[link.buffer], read.end);
    }
  }
}

}  // namespace

void begin_strips(const Plan& plan, const Stage& stage, Strips strips, Progress* at) {
  const uint32_t all = strips.all(stage);
  first_rows(plan, stage, strips.first, all, &at->done, &at->ends);
  first_rows(plan, stage, strips.end, all, &at->end, &at->ends);
}

}  // namespace dqa
