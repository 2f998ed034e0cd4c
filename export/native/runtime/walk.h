// Which rows every op of a plan computes, and when.
#ifndef DQA_RUNTIME_WALK_H_
#define DQA_RUNTIME_WALK_H_

#include <vector>

#include "plan.h"

namespace dqa {

// The rows of a link that rows first..end (not empty) of the op's output are made of.
Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output);

// The rows of an output of `height` rows that are there after `step` of `steps`.
inline uint32_t rows_after(uint32_t height, uint32_t step, uint32_t steps) {
  return static_cast<uint32_t>((uint64_t{height} * (step + 1) + steps - 1) / steps);
}

// Calls `visit(op index, rows)` for every run of rows that an op of a stage computes,
// in order, and `begin(stage index)` before a stage. Stops at the first failure.
template <class Begin, class Visit>
DqaStatus walk(const Plan& plan, std::vector<uint32_t>* done_and_needed, Begin begin,
               Visit visit) {
  std::vector<uint32_t>& rows = *done_and_needed;
  const size_t count = plan.buffers.size();
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const Stage& stage = plan.stages[s];
    if (const DqaStatus status = begin(s)) return status;
    for (size_t i = 0; i < stage.count; ++i) {
      rows[plan.ops[stage.first + i].output] = 0;
    }
    for (uint32_t step = 0; step < stage.steps; ++step) {
      uint32_t* const needed = rows.data() + count;
      for (size_t i = 0; i < stage.count; ++i) {
        const uint16_t output = plan.ops[stage.first + i].output;
        const Buffer& buffer = plan.buffers[output];
        needed[output] = buffer.kind == Kind::kRing
                             ? 0
                             : rows_after(buffer.height, step, stage.steps);
      }
      for (size_t i = stage.count; i-- > 0;) {
        const Op& op = plan.ops[stage.first + i];
        const Rows output{rows[op.output], needed[op.output]};
        if (output.end <= output.first) continue;
        for (size_t k = 0; k < op.link_count; ++k) {
          const Link& link = plan.links[op.first_link + k];
          const uint32_t end = rows_read(plan, op, link, output).end;
          if (end > needed[link.buffer]) needed[link.buffer] = end;
        }
      }
      for (size_t i = 0; i < stage.count; ++i) {
        const size_t index = stage.first + i;
        const uint16_t output = plan.ops[index].output;
        const Rows todo{rows[output], needed[output]};
        if (todo.end <= todo.first) continue;
        if (const DqaStatus status = visit(index, todo)) return status;
        rows[output] = todo.end;
      }
    }
  }
  return DQA_OK;
}

}  // namespace dqa

#endif  // DQA_RUNTIME_WALK_H_
