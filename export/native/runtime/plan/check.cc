#include "runtime/plan/check.h"

#include "codec/errors.h"
#include "runtime/schedule/row_schedule.h"

namespace dqa {
namespace {

constexpr uint32_t kMaxSteps = 1u << 16;

DqaStatus corrupt(DqaError* error, const char* rule, size_t op) {
  return fail(error, DQA_CORRUPT, "the plan is invalid: op %zu: %s", op, rule);
}

// Whether an op's code and buffers exist, and it has as many links as its code needs.
bool is_complete(const Plan& plan, const Op& op) {
  if (static_cast<size_t>(op.code) >= kOpCodes || op.link_count < 1 ||
      op.output >= plan.buffers.size() ||
      size_t{op.first_link} + op.link_count > plan.links.size()) {
    return false;
  }
  for (size_t k = 0; k < op.link_count; ++k) {
    if (plan.link(op, k).buffer >= plan.buffers.size()) return false;
  }
  return true;
}

// Whether grouped buffers of an op are written by a convolution and read by a depthwise
// one right behind it, and by nothing else.
bool has_groups_in_place(const Plan& plan, const Stage& stage, size_t index) {
  const Op& op = plan.ops[index];
  if (is_grouped(plan.buffers[op.output])) {
    if (op.code != OpCode::kConv || op.link_count != 1 ||
        index + 1 >= size_t{stage.first} + stage.count ||
        !is_complete(plan, plan.ops[index + 1]) ||
        plan.link(plan.ops[index + 1], 0).buffer != op.output) {
      return false;
    }
  }
  for (size_t k = 0; k < op.link_count; ++k) {
    const uint16_t read = plan.link(op, k).buffer;
    if (!is_grouped(plan.buffers[read])) continue;
    if (k > 0 || op.code != OpCode::kDepthwise || index == stage.first ||
        plan.ops[index - 1].output != read) {
      return false;
    }
  }
  return true;
}

// Whether the rows of a grouped input that an op sees are kept or computed for it, and
// fit the room for them.
bool has_window(const Plan& plan, const Op& op, Rows todo) {
  const Buffer& in = plan.input(op);
  const SeenRows seen = rows_seen(plan, op, plan.link(op, 0), todo);
  const Rows made = rows_made(plan, op, todo);
  const size_t row = (size_t{in.left} + in.width + in.right) * group_channels(in, 0);
  return made.first - std::max<int64_t>(seen.first, 0) <= in.rows &&
         static_cast<uint64_t>(seen.end - seen.first) * row <= group_window(op, in);
}

}  // namespace

DqaStatus check_ops(const Plan& plan, DqaError* error) {
  std::vector<uint32_t> written(plan.buffers.size(), kNone);
  size_t next = 0;
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const Stage& stage = plan.stages[s];
    if (stage.first != next || stage.count == 0 || stage.steps < 1 ||
        stage.steps > kMaxSteps || next + stage.count > plan.ops.size()) {
      return fail(error, DQA_CORRUPT, "the plan is invalid: stage %zu", s);
    }
    for (size_t i = 0; i < stage.count; ++i, ++next) {
      const Op& op = plan.ops[next];
      if (!is_complete(plan, op))
        return corrupt(error, "its buffers do not exist", next);
      const Buffer& output = plan.buffers[op.output];
      if (output.kind == Kind::kInput || written[op.output] != kNone) {
        return corrupt(error, "its output is written twice", next);
      }
      for (size_t k = 0; k < op.link_count; ++k) {
        const uint16_t read = plan.link(op, k).buffer;
        const Buffer& b = plan.buffers[read];
        const bool there = b.kind == Kind::kInput ||
                           (b.kind == Kind::kStored && written[read] < s) ||
                           (is_line_buffer(b) && written[read] == s);
        if (!there) return corrupt(error, "it reads what was not written", next);
      }
      written[op.output] = static_cast<uint32_t>(s);
      if (!has_groups_in_place(plan, stage, next)) {
        return corrupt(error, "channels in groups go to a depthwise convolution", next);
      }
      if (const char* rule = broken_rule(plan, op)) return corrupt(error, rule, next);
    }
  }
  if (next != plan.ops.size()) {
    return fail(error, DQA_CORRUPT, "the plan is invalid: stages miss ops");
  }
  for (const uint16_t output : plan.outputs) {
    if (written[output] == kNone) {
      return fail(error, DQA_CORRUPT, "the plan is invalid: no op writes output %u",
                  unsigned{output});
    }
  }
  return DQA_OK;
}

DqaStatus check_line_buffers(const Plan& plan, DqaError* error) {
  Progress at(plan);
  for (const Stage& stage : plan.stages) {
    const DqaStatus status = for_each_rows(
        plan, stage, {0, stage.steps}, &at, [&](size_t index, Rows todo, Rows) {
          const Op& op = plan.ops[index];
          const Buffer& output = plan.buffers[op.output];
          if (is_line_buffer(output) && todo.end - todo.first > output.rows) {
            return corrupt(error, "its line buffer is too small", index);
          }
          bool held = !is_grouped(plan.input(op)) || has_window(plan, op, todo);
          for_each_link(
              plan, op, todo, [&](const Op& reader, const Link& link, Rows rows) {
                const Buffer& b = plan.buffers[link.buffer];
                if (!is_line_buffer(b)) return;
                const int64_t first = rows_seen(plan, reader, link, rows).first;
                const uint32_t done = at.done[link.buffer];
                held = held && rows_read(plan, reader, link, rows).end <= done &&
                       holds(b, first, done);
              });
          if (held) return DQA_OK;
          return corrupt(error, "it reads rows that its line buffer does not hold",
                         index);
        });
    if (status != DQA_OK) return status;
  }
  return DQA_OK;
}

}  // namespace dqa
