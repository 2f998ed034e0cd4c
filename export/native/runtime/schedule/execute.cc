#include "runtime/schedule/execute.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "runtime/ops/ops.h"
#include "runtime/schedule/row_schedule.h"

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

void save_rows(const Run& run) {
  for (const Saved& saved : run.share->saved) {
    const Buffer& b = run.buffer(saved.buffer);
    std::memcpy(run.arena + saved.offset, run.stored_row(b, saved.row),
                b.size / b.height);
  }
}

DqaStatus compute_row(Run& run, size_t index, uint32_t y) {
  const Op& op = run.plan.ops[index];
  switch (op.code) {
    case Code::kRead: read(run, index, y); break;
    case Code::kLoad: return load(run, op, y);
    case Code::kStore: return store(run, op, y);
    case Code::kMaximum: maximum(run, op, y); break;
    case Code::kNearest: nearest(run, op, y); break;
    case Code::kBilinear: bilinear(run, op, y); break;
    case Code::kJoin: join(run, op, y); break;
    case Code::kDepthToSpace: depth_to_space(run, op, y); break;
    default: break;
  }
  return DQA_OK;
}

DqaStatus compute(Run& run, size_t index, Rows todo) {
  const Op& op = run.plan.ops[index];
  const size_t blocks = blocks_of(run.buffer(op.output));
  switch (op.code) {
    case Code::kConv:
      conv(run, index, run.piece(todo, blocks, run.kernels.conv_blocks));
      return DQA_OK;
    case Code::kDepthwise: depthwise(run, index, todo); return DQA_OK;
    case Code::kWinograd: winograd(run, index, todo); return DQA_OK;
    case Code::kCombine: combine(run, op, run.piece(todo, blocks, 1)); return DQA_OK;
    case Code::kAverage: average(run, op, run.piece(todo, blocks, 1)); return DQA_OK;
    default: break;
  }
  const Piece piece = run.piece(todo, 1, 1);
  if (piece.first_block == piece.end_block) return DQA_OK;
  for (uint32_t y = piece.rows.first; y < piece.rows.end; ++y) {
    if (const DqaStatus status = compute_row(run, index, y)) return status;
  }
  return DQA_OK;
}

DqaStatus timed(Run& run, size_t index, Rows todo) {
  if (run.times == nullptr) return compute(run, index, todo);
  const auto start = std::chrono::steady_clock::now();
  const DqaStatus status = compute(run, index, todo);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  run.times->ops[static_cast<size_t>(run.plan.ops[index].code)] += spent.count();
  return status;
}

void show(const Run& run, const Watch& watch, size_t index, Rows done) {
  const Buffer& out = run.buffer(run.plan.ops[index].output);
  if (out.kind != Kind::kRing) return;
  for (uint32_t y = done.first; y < done.end; ++y) {
    watch.observer(watch.user, static_cast<uint32_t>(index), y, run.row(out, y),
                   out.pixel_bytes());
  }
}

// Where a given row lies.
uint8_t* given_row(const Run& run, const Given& given, const Buffer& b, uint32_t y) {
  return run.arena + given.offset + (y - given.rows.first) * b.row_bytes();
}

// One run on all threads.
class Execution {
 public:
  Execution(const Program& program, Crew* crew, const void* const* inputs,
            void* const* outputs, uint8_t* arena)
      : program_(program),
        plan_(program.plan),
        crew_(*crew),
        threads_(static_cast<unsigned>(program.division.workers.size())),
        slots_(plan_.inputs.size()),
        coded_(plan_),
        most_(threads_ * plan_.ops.size()),
        given_(threads_ * plan_.ops.size()),
        times_(program.watch.seconds == nullptr ? 0 : threads_),
        statuses_(threads_, DQA_OK) {
    size_t widest = 0;
    for (const uint16_t input : plan_.inputs) {
      const Buffer& b = plan_.buffers[input];
      widest = std::max(widest, size_t{b.width} * b.channels);
    }
    runs_.reserve(threads_);
    for (unsigned t = 0; t < threads_; ++t) {
      runs_.push_back({plan_, program.prepared, *program.kernels,
                       program.division.workers[t], inputs, outputs, arena,
                       slots_.data(), times_.empty() ? nullptr : &times_[t], &coded_,
                       std::vector<int16_t>(widest + 1)});
      progress_.emplace_back(plan_);
    }
  }

  DqaStatus operator()(size_t* spilled, DqaError* error) {
    crew_.run([this](unsigned thread) { work(thread); });
    *spilled = coded_.spilled();
    if (double* const seconds = program_.watch.seconds) {
      for (const Times& times : times_) {
        for (size_t i = 0; i < kCodes; ++i) seconds[i] += times.ops[i];
        seconds[kCodes] += times.requantize;
      }
    }
    for (unsigned t = 0; t < threads_; ++t) {
      if (statuses_[t] == DQA_OK) continue;
      if (error != nullptr) *error = runs_[t].error;
      return statuses_[t];
    }
    return DQA_OK;
  }

 private:
  void work(unsigned thread) {
    Run& run = runs_[thread];
    for (size_t i = 0; i < plan_.ops.size(); ++i) {
      if (plan_.ops[i].code != Code::kRead) continue;
      most_[thread * plan_.ops.size() + i] = measure(run, i, thread, threads_);
    }
    crew_.meet();
    if (thread == 0) begun_ = begin();
    crew_.meet();
    statuses_[thread] = begun_;
    if (begun_ != DQA_OK) return;
    for (size_t s = 0; s < plan_.stages.size(); ++s) {
      run.share = &run.worker.shares[s];
      if (program_.division.together[s]) {
        stage_together(run, thread, plan_.stages[s]);
      } else {
        stage_apart(run, thread, s);
      }
    }
  }

  // What comes in front of the first stage.
  DqaStatus begin() {
    Run& run = runs_[0];
    for (size_t i = 0; i < plan_.ops.size(); ++i) {
      if (plan_.ops[i].code != Code::kRead) continue;
      int32_t most = 0;
      for (unsigned t = 0; t < threads_; ++t) {
        most = std::max(most, most_[t * plan_.ops.size() + i]);
      }
      if (const DqaStatus status = set_slot(run, plan_.ops[i], most)) return status;
    }
    for (const Op& op : plan_.ops) scale_arrays(run, op);
    return DQA_OK;
  }

  // Each thread its own strips.
  void stage_apart(Run& run, unsigned thread, size_t s) {
    const Stage& stage = plan_.stages[s];
    run.part = 0;
    run.parts = 1;
    save_rows(run);
    clear_rings(run, stage);
    if (program_.division.saves[s]) crew_.meet();
    walk(plan_, stage, run.share->strips, &progress_[thread],
         [&](size_t index, Rows computed, Rows taken) {
           if (computed.end > computed.first) {
             compute_once(run, thread, index, computed);
           }
           take(run, thread, s, index, taken);
           give(run, thread, run.share->given[index - stage.first], index,
                {computed.first, taken.end});
           if (program_.watch.observer != nullptr) {
             show(run, program_.watch, index, computed);
           }
           return DQA_OK;
         });
    crew_.meet();
  }

  // Copies rows of a ring that the next thread gives.
  void take(const Run& run, unsigned thread, size_t s, size_t index, Rows rows) {
    if (rows.end <= rows.first) return;
    const Share& next = program_.division.workers[thread + 1].shares[s];
    const Given& given = next.given[index - plan_.stages[s].first];
    const std::atomic<uint32_t>& there =
        given_[(thread + 1) * plan_.ops.size() + index];
    while (!look([&] { return there.load(std::memory_order_acquire) >= rows.end; })) {
    }
    const Buffer& b = run.buffer(plan_.ops[index].output);
    for (uint32_t y = rows.first; y < rows.end; ++y) {
      std::memcpy(run.framed_row(b, y), given_row(run, given, b, y), b.row_bytes());
    }
  }

  // Keeps those rows of a ring that the thread before needs, too.
  void give(const Run& run, unsigned thread, const Given& given, size_t index,
            Rows rows) {
    const uint32_t first = std::max(rows.first, given.rows.first);
    const uint32_t end = std::min(rows.end, given.rows.end);
    if (end <= first) return;
    const Buffer& b = run.buffer(plan_.ops[index].output);
    for (uint32_t y = first; y < end; ++y) {
      std::memcpy(given_row(run, given, b, y), run.framed_row(b, y), b.row_bytes());
    }
    given_[thread * plan_.ops.size() + index].store(end, std::memory_order_release);
  }

  // Each thread a piece of every op.
  void stage_together(Run& run, unsigned thread, const Stage& stage) {
    run.part = thread;
    run.parts = threads_;
    if (thread == 0) clear_rings(run, stage);
    crew_.meet();
    walk(plan_, stage, run.share->strips, &progress_[thread],
         [&](size_t index, Rows todo, Rows) {
           compute_once(run, thread, index, todo);
           crew_.meet();
           if (thread == 0 && program_.watch.observer != nullptr) {
             show(run, program_.watch, index, todo);
           }
           return DQA_OK;
         });
    crew_.meet();
  }

  // A thread that failed goes on to the meetings.
  void compute_once(Run& run, unsigned thread, size_t index, Rows todo) {
    if (statuses_[thread] == DQA_OK) statuses_[thread] = timed(run, index, todo);
  }

  const Program& program_;
  const Plan& plan_;
  Crew& crew_;
  const unsigned threads_;
  std::vector<Slot> slots_;
  CodedStores coded_;
  std::vector<int32_t> most_;                 // of inputs, by thread and op
  std::vector<std::atomic<uint32_t>> given_;  // rows up to here, by thread and op
  std::vector<Times> times_;
  std::vector<DqaStatus> statuses_;
  std::vector<Run> runs_;
  std::vector<Progress> progress_;
  DqaStatus begun_ = DQA_OK;
};

}  // namespace

DqaStatus execute(const Program& program, Crew* crew, const void* const* inputs,
                  void* const* outputs, uint8_t* arena, size_t* spilled,
                  DqaError* error) {
  return Execution(program, crew, inputs, outputs, arena)(spilled, error);
}

}  // namespace dqa
