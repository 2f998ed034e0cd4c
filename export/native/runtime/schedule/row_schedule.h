// The row schedule: which rows each op of a plan computes, and in which order.
#ifndef DQA_RUNTIME_SCHEDULE_ROW_SCHEDULE_H_
#define DQA_RUNTIME_SCHEDULE_ROW_SCHEDULE_H_

#include <algorithm>
#include <vector>

#include "runtime/ops/winograd.h"
#include "runtime/plan/plan.h"

namespace dqa {

// The rows of a link's buffer that an op reads to compute some rows, at least one, of
// its output.
Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output);

// The rows that an op computes when some rows of its output are needed: Winograd tiles
// are two rows high.
inline Rows rows_computed(const Plan& plan, const Op& op, Rows output) {
  if (op.code != OpCode::kWinograd) return output;
  const uint32_t height = plan.buffers[op.output].height;
  return {output.first / kTileSide * kTileSide,
          std::min(tiles_of(output.end) * kTileSide, height)};
}

// Strips first..end of a stage, each cut into `parts` so that a thread may begin inside
// one: a stage may have few strips. The last strip may be incomplete.
struct Strips {
  uint32_t first, end;
  uint32_t parts = 1;

  uint32_t all(const Stage& stage) const { return stage.steps * parts; }
};

// How many of an output's `height` rows exist after some of `steps` strips.
inline uint32_t rows_after(uint32_t height, uint32_t strips, uint32_t steps) {
  return static_cast<uint32_t>((uint64_t{height} * strips + steps - 1) / steps);
}

// How far a row schedule has come, by buffer.
struct Progress {
  explicit Progress(const Plan& plan)
      : done(plan.buffers.size()),
        needed(plan.buffers.size()),
        end(plan.buffers.size()) {}

  std::vector<uint32_t> done;    // rows before this one exist
  std::vector<uint32_t> needed;  // rows before this one exist at the end of the strip
  std::vector<uint32_t> end;     // the next strips compute this row and later ones
};

// Sets `done` to the first rows that some strips of a stage need, and `end` to the
// first rows that the strips after them need.
void begin_strips(const Plan& plan, const Stage& stage, Strips strips, Progress* at);

// Calls `visit(op index, computed, halo)` for the rows of each op that each strip
// needs, in order: rows to compute, then halo rows, which the next thread computes.
// Stops at the first failure.
template <class Visit>
DqaStatus for_each_rows(const Plan& plan, const Stage& stage, Strips strips,
                        Progress* at, Visit visit) {
  begin_strips(plan, stage, strips, at);
  for (uint32_t next = strips.first; next < strips.end;) {
    next = std::min(next + strips.parts, strips.end);
    for (size_t i = 0; i < stage.count; ++i) {
      const uint16_t output = plan.ops[stage.first + i].output;
      const Buffer& buffer = plan.buffers[output];
      at->needed[output] = is_line_buffer(buffer)
                               ? 0
                               : rows_after(buffer.height, next, strips.all(stage));
    }
    for (size_t i = stage.count; i-- > 0;) {
      const Op& op = plan.ops[stage.first + i];
      const Rows needed_rows{at->done[op.output],
                             std::min(at->needed[op.output], at->end[op.output])};
      if (needed_rows.end <= needed_rows.first) continue;
      const Rows output = rows_computed(plan, op, needed_rows);
      at->needed[op.output] = std::max(at->needed[op.output], output.end);
      for (size_t k = 0; k < op.link_count; ++k) {
        const Link& link = plan.link(op, k);
        uint32_t& needed = at->needed[link.buffer];
        needed = std::max(needed, rows_read(plan, op, link, output).end);
      }
    }
    for (size_t i = 0; i < stage.count; ++i) {
      const size_t index = stage.first + i;
      const uint16_t output = plan.ops[index].output;
      const Rows todo{at->done[output], at->needed[output]};
      if (todo.end <= todo.first) continue;
      const uint32_t end = std::clamp(at->end[output], todo.first, todo.end);
      const DqaStatus status = visit(index, Rows{todo.first, end}, Rows{end, todo.end});
      if (status != DQA_OK) return status;
      at->done[output] = todo.end;
    }
  }
  return DQA_OK;
}

}  // namespace dqa

#endif  // DQA_RUNTIME_SCHEDULE_ROW_SCHEDULE_H_
