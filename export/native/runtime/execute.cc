#include "execute.h"

#include <chrono>
#include <cstring>

#include "ops.h"
#include "walk.h"

namespace dqa {
namespace {

// Everything a ring does not write itself is zero: columns and rows around the tensor,
// and channels that JOIN adds.
void clear_rings(const Run& run, const Stage& stage) {
  for (size_t i = 0; i < stage.count; ++i) {
    const Buffer& b = run.buffer(run.plan.ops[stage.first + i].output);
    if (b.kind != Kind::kRing) continue;
    std::memset(run.arena + b.offset, b.type == Type::kCodes ? b.zero : 0, b.size);
  }
}

DqaStatus compute_row(Run& run, const Op& op, uint32_t y) {
  switch (op.code) {
    case Code::kRead: read(run, op, y); break;
    case Code::kLoad: return load(run, op, y);
    case Code::kStore: return store(run, op, y);
    case Code::kCombine: combine(run, op, y); break;
    case Code::kAverage: average(run, op, y); break;
    case Code::kMaximum: maximum(run, op, y); break;
    case Code::kNearest: nearest(run, op, y); break;
    case Code::kBilinear: bilinear(run, op, y); break;
    case Code::kJoin: join(run, op, y); break;
    case Code::kDepthToSpace: depth_to_space(run, op, y); break;
    case Code::kConv:
    case Code::kDepthwise: break;
  }
  return DQA_OK;
}

DqaStatus compute(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  if (op.code == Code::kConv) {
    conv(run, index, todo);
    return DQA_OK;
  }
  if (op.code == Code::kDepthwise) {
    depthwise(run, index, todo);
    return DQA_OK;
  }
  for (uint32_t y = todo.first; y < todo.end; ++y) {
    if (const DqaStatus status = compute_row(run, op, y)) return status;
  }
  return DQA_OK;
}

void show(const Run& run, const Watch& watch, size_t index, Rows done) {
  const Buffer& out = run.buffer(run.plan.ops[index].output);
  if (out.kind != Kind::kRing) return;
  for (uint32_t y = done.first; y < done.end; ++y) {
    watch.observer(watch.user, static_cast<uint32_t>(index), y, run.row(out, y),
                   out.pixel_bytes());
  }
}

DqaStatus visit(Run& run, const Watch& watch, size_t index, Rows todo) {
  if (watch.seconds == nullptr) return compute(run, index, todo);
  const auto start = std::chrono::steady_clock::now();
  const DqaStatus status = compute(run, index, todo);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  watch.seconds[static_cast<size_t>(run.plan.ops[index].code)] += spent.count();
  return status;
}

}  // namespace

DqaStatus execute(Run& run, const Watch& watch) {
  for (const Op& op : run.plan.ops) {
    if (op.code != Code::kRead) continue;
    if (const DqaStatus status = measure(run, op)) return status;
  }
  for (const Op& op : run.plan.ops) scale_arrays(run, op);
  std::vector<uint32_t> rows(2 * run.plan.buffers.size());
  return walk(
      run.plan, &rows,
      [&](size_t stage) {
        clear_rings(run, run.plan.stages[stage]);
        return DQA_OK;
      },
      [&](size_t index, Rows todo) {
        if (const DqaStatus status = visit(run, watch, index, todo)) return status;
        if (watch.observer != nullptr) show(run, watch, index, todo);
        return DQA_OK;
      });
}

}  // namespace dqa
