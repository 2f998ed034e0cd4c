// The row schedule: which rows each op of a plan computes, and in which order.
#ifndef DQA_RUNTIME_SCHEDULE_ROW_SCHEDULE_H_
#define DQA_RUNTIME_SCHEDULE_ROW_SCHEDULE_H_

#include <algorithm>
#include <vector>

#include "runtime/ops/winograd.h"
#include "runtime/plan/plan.h"

namespace dqa {

// The rows of a link's buffer that an op sees when it computes some rows, at least one,
// of its output. Where its taps read zeros around the tensor they may lie outside.
struct SeenRows {
  int64_t first, end;
};

SeenRows rows_seen(const Plan& plan, const Op& op, const Link& link, Rows output);

// Those of them that the tensor has, or the one that is next to them.
Rows rows_read(const Plan& plan, const Op& op, const Link& link, Rows output);

// The rows of a grouped input that are computed with some rows of an op's output: those
// that the rows before do not see. Rows before them, which the first window sees, are
// computed one by one, as far as there is room to keep them.
Rows rows_made(const Plan& plan, const Op& op, Rows output);

// Bytes of a group of channels of all rows that the window of an op covers.
size_t group_window(const Op& op, const Buffer& in);

// Calls `visit(op, link, rows)` for all that is read for some rows of an op's output,
// and what they are read for.
template <class Visit>
void for_each_link(const Plan& plan, const Op& op, Rows rows, Visit visit) {
  for (size_t k = 0; k < op.link_count; ++k) {
    const Link& link = plan.link(op, k);
    if (!is_grouped(plan.buffers[link.buffer])) {
      visit(op, link, rows);
      continue;
    }
    const Op& maker = *(&op - 1);
    const Rows made = rows_made(plan, op, rows);
    if (made.end > made.first) visit(maker, plan.link(maker, 0), made);
  }
}

// The rows that an op computes when some rows of its output are needed: Winograd tiles
// are two rows high.
inline Rows rows_computed(const Plan& plan, const Op& op, Rows output) {
  if (op.code != OpCode::kWinograd) return output;
  const uint32_t height = plan.buffers[op.output].height;
  return {output.first / kTileSide * kTileSide,
          std::min(tiles_of(output.end) * kTileSide, height)};
}

// Whether a line buffer holds rows from one on, until its newest is number `end` - 1.
// If it has more rows than the tensor, the last one is left for zeros.
inline bool holds(const Buffer& b, int64_t first, uint32_t end) {
  return b.rows > b.height || end - first <= b.rows;
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

// Rows before `wanted` of an op's output, asked for by an op that reads them.
struct Asked {
  uint16_t op;
  uint32_t wanted;
};

// How far a row schedule has come, by buffer.
struct Progress {
  explicit Progress(const Plan& plan);

  // Rows before this one exist, or stand for zeros behind the last one.
  std::vector<uint32_t> done;
  std::vector<uint32_t> end;    // the next strips compute this row and later ones
  std::vector<uint32_t> ends;   // room for `begin_strips`
  std::vector<uint16_t> maker;  // the op that writes the buffer
  std::vector<Asked> asked;     // each by the one before it
};

// Sets `done` to the first rows that some strips of a stage need, and `end` to the
// first rows that the strips after them need.
void begin_strips(const Plan& plan, const Stage& stage, Strips strips, Progress* at);

// The rows that an op computes next, and the first of them that the next thread
// computes. Of those none is taken that nobody asked for.
struct NextRows {
  uint32_t first, border, end;
};

inline NextRows next_rows(const Plan& plan, const Asked& asked, const Progress& at) {
  const Op& op = plan.ops[asked.op];
  const Buffer& out = plan.buffers[op.output];
  const uint32_t first = at.done[op.output];
  uint32_t end = std::min(first + op.rows, out.height);
  if (!is_line_buffer(out) || is_grouped(out)) end = std::min(end, asked.wanted);
  end = rows_computed(plan, op, {first, end}).end;
  const uint32_t border = std::clamp(at.end[op.output], first, end);
  if (end > border) end = std::max(border, std::min(end, asked.wanted));
  return {first, border, end};
}

// Asks for the rows of a grouped input that must be kept before some rows of an op are
// computed. Whether any lacks. Not inline: few ops have such an input.
bool ask_for_kept_rows(const Plan& plan, const Op& op, Rows rows, Progress* at);

// Puts what an op lacks to compute some rows on top of `asked`. Whether it lacks
// anything.
inline bool ask_for_inputs(const Plan& plan, const Op& op, Rows rows, Progress* at) {
  if (rows.end <= rows.first) return false;
  if (op.code == OpCode::kDepthwise && ask_for_kept_rows(plan, op, rows, at)) {
    return true;
  }
  bool lacks = false;
  for_each_link(plan, op, rows, [&](const Op& reader, const Link& link, Rows output) {
    if (lacks || !is_line_buffer(plan.buffers[link.buffer])) return;
    const uint32_t wanted = rows_read(plan, reader, link, output).end;
    if (at->done[link.buffer] >= wanted) return;
    at->asked.push_back({at->maker[link.buffer], wanted});
    lacks = true;
  });
  return lacks;
}

// Rows of a grouped input are computed with those of the op that reads them.
void see_group(const Plan& plan, const Op& op, Rows rows, Progress* at);

// Zeros behind the last row take the place of a row that is read no more.
inline void see_inputs(const Plan& plan, const Op& op, Rows rows, Progress* at) {
  if (rows.end <= rows.first || !sees_zeros(op.code)) return;
  if (op.code == OpCode::kDepthwise) see_group(plan, op, rows, at);
  for_each_link(plan, op, rows, [&](const Op& reader, const Link& link, Rows output) {
    if (link.addend != 0 || !is_line_buffer(plan.buffers[link.buffer])) return;
    const int64_t end = rows_seen(plan, reader, link, output).end;
    if (end > at->done[link.buffer]) at->done[link.buffer] = static_cast<uint32_t>(end);
  });
}

// Calls `visit(op index, computed, halo)` for the rows of each op that each strip
// needs: rows to compute, then halo rows, which the next thread computes. An op that
// writes to memory asks for the rows that it needs next, and those that make them for
// theirs: no row is computed before it is wanted. Stops at the first failure.
template <class Visit>
DqaStatus for_each_rows(const Plan& plan, const Stage& stage, Strips strips,
                        Progress* at, Visit visit) {
  begin_strips(plan, stage, strips, at);
  at->asked.clear();
  for (uint32_t next = strips.first; next < strips.end;) {
    next = std::min(next + strips.parts, strips.end);
    for (size_t i = 0; i < stage.count; ++i) {
      const auto sink = static_cast<uint16_t>(stage.first + i);
      const Buffer& written = plan.buffers[plan.ops[sink].output];
      if (is_line_buffer(written)) continue;
      at->asked.push_back({sink, rows_after(written.height, next, strips.all(stage))});
      while (!at->asked.empty()) {
        const Asked asked = at->asked.back();
        const Op& op = plan.ops[asked.op];
        if (at->done[op.output] >= asked.wanted) {
          at->asked.pop_back();
          continue;
        }
        const NextRows rows = next_rows(plan, asked, *at);
        if (ask_for_inputs(plan, op, {rows.first, rows.border}, at)) continue;
        see_inputs(plan, op, {rows.first, rows.border}, at);
        const DqaStatus status =
            visit(asked.op, Rows{rows.first, rows.border}, Rows{rows.border, rows.end});
        if (status != DQA_OK) return status;
        at->done[op.output] = rows.end;
      }
    }
  }
  return DQA_OK;
}

}  // namespace dqa

#endif  // DQA_RUNTIME_SCHEDULE_ROW_SCHEDULE_H_
