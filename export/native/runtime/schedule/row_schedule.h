// Which rows every op of a plan computes, and when.
#ifndef DQA_RUNTIME_WALK_H_
#define DQA_RUNTIME_WALK_H_

#include <algorithm>
#include <vector>

#include "runtime/plan/plan.h"
#include "runtime/ops/winograd.h"

namespace dqa {

// The rows of a link that rows first..end (not empty) of the op's output are made of.
Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output);

// The rows that an op computes at once if it must compute some of its output's: tiles
// are two rows high.
inline Rows rows_computed(const Plan& plan, const Op& op, Rows output) {
  if (op.code != Code::kWinograd) return output;
  const uint32_t height = plan.buffers[op.output].height;
  return {output.first / kTileSide * kTileSide,
          std::min(tiles_of(output.end) * kTileSide, height)};
}

// Strips of a stage, first..end in parts of a strip: where it has few, threads meet
// inside one. The last may be incomplete.
struct Strips {
  uint32_t first, end;
  uint32_t parts = 1;

  uint32_t all(const Stage& stage) const { return stage.steps * parts; }
};

// The rows of an output of `height` rows that are there after some of `steps` strips.
inline uint32_t rows_after(uint32_t height, uint32_t strips, uint32_t steps) {
  return static_cast<uint32_t>((uint64_t{height} * strips + steps - 1) / steps);
}

// Where a walk stands, by buffer.
struct Progress {
  explicit Progress(const Plan& plan)
      : done(plan.buffers.size()),
        needed(plan.buffers.size()),
        end(plan.buffers.size()) {}

  std::vector<uint32_t> done;    // rows up to here are there
  std::vector<uint32_t> needed;  // will be, at the end of the strip
  std::vector<uint32_t> end;     // from here on they are the next strips'
};

// Sets `done` to the first rows that the strips of a stage need, and `end` to those
// that the strips behind them need.
void begin_strips(const Plan& plan, const Stage& stage, Strips strips, Progress* at);

// Calls `visit(op index, computed, taken)` for every run of rows that an op of a stage
// has to have in some strips, in order: rows to compute, and rows behind them that the
// next strips need too, which whoever walks those computes. Stops at the first failure.
template <class Visit>
DqaStatus walk(const Plan& plan, const Stage& stage, Strips strips, Progress* at,
               Visit visit) {
  begin_strips(plan, stage, strips, at);
  for (uint32_t next = strips.first; next < strips.end;) {
    next = std::min(next + strips.parts, strips.end);
    for (size_t i = 0; i < stage.count; ++i) {
      const uint16_t output = plan.ops[stage.first + i].output;
      const Buffer& buffer = plan.buffers[output];
      at->needed[output] = buffer.kind == Kind::kRing
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
        const Link& link = plan.links[op.first_link + k];
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

#endif  // DQA_RUNTIME_WALK_H_
