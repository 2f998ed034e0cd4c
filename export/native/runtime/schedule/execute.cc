#include "runtime/schedule/execute.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "runtime/ops/ops.h"
#include "runtime/schedule/row_schedule.h"

namespace dqa {
namespace {

// Columns and rows around the tensor stay zero, and channels that no operand of CONCAT
// fills.
void clear_line_buffers(const Run& run, const Stage& stage) {
  for (size_t i = 0; i < stage.count; ++i) {
    const Buffer& b = run.buffer(run.plan.ops[stage.first + i].output);
    if (!is_line_buffer(b) || is_grouped(b)) continue;
    std::memset(run.arena + b.offset, b.type == Type::kCodes ? b.zero : 0, b.size);
  }
}

// Calls `visit(buffer, end)` if rows behind the last one, which an op sees as far as
// `end`, were other rows.
template <class Visit>
void find_rows_behind(const Run& run, size_t index, Rows rows, Visit visit) {
  const Op& op = run.plan.ops[index];
  if (rows.end <= rows.first || !sees_zeros(op.code)) return;
  for_each_link(run.plan, op, rows, [&](const Op& reader, const Link& link, Rows of) {
    const Buffer& b = run.buffer(link.buffer);
    if (link.addend != 0 || !is_line_buffer(b) || b.rows > b.height) return;
    const int64_t end = rows_seen(run.plan, reader, link, of).end;
    if (end > b.height) visit(b, static_cast<uint32_t>(end));
  });
}

bool lacks_zeros(const Run& run, size_t index, Rows rows) {
  bool lacks = false;
  find_rows_behind(run, index, rows, [&](const Buffer&, uint32_t) { lacks = true; });
  return lacks;
}

void clear_rows_behind(const Run& run, size_t index, Rows rows) {
  find_rows_behind(run, index, rows, [&](const Buffer& b, uint32_t end) {
    for (uint32_t y = b.height; y < end; ++y) {
      std::memset(run.framed_row(b, y), b.type == Type::kCodes ? b.zero : 0,
                  b.row_bytes());
    }
  });
}

void save_rows(const Run& run) {
  for (const Saved& saved : run.share->saved) {
    const Buffer& b = run.buffer(saved.buffer);
    std::memcpy(run.arena + saved.offset, run.stored_row(b, saved.row),
                b.size / b.height);
  }
}

using Compute = DqaStatus (*)(Run& run, size_t index, Rows rows);

#define DQA_OP(code, function, ...) function,
constexpr Compute kComputes[] = {DQA_OP_TABLE(DQA_OP)};
#undef DQA_OP

DqaStatus compute(Run& run, size_t index, Rows rows) {
  return kComputes[static_cast<size_t>(run.plan.ops[index].code)](run, index, rows);
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
  if (!is_line_buffer(out) || is_grouped(out)) return;
  for (uint32_t y = done.first; y < done.end; ++y) {
    watch.observer(watch.user, static_cast<uint32_t>(index), y, run.row(out, y),
                   out.pixel_bytes());
  }
}

// Where the published copy of a halo row lies.
uint8_t* halo_row(const Run& run, const HaloRows& halo, const Buffer& b, uint32_t y) {
  return run.arena + halo.offset + (y - halo.rows.first) * b.row_bytes();
}

// One run on all threads.
class Execution {
 public:
  Execution(const Program& program, ThreadPool* pool, const void* const* inputs,
            void* const* outputs, uint8_t* arena)
      : program_(program),
        plan_(program.plan),
        pool_(*pool),
        threads_(static_cast<unsigned>(program.partition.workers.size())),
        slots_(plan_.inputs.size()),
        coded_(plan_),
        largest_(threads_ * plan_.ops.size()),
        published_(threads_ * plan_.ops.size()),
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
                       program.partition.workers[t], inputs, outputs, arena,
                       slots_.data(), times_.empty() ? nullptr : &times_[t], &coded_,
                       std::vector<int16_t>(widest + 1)});
      progress_.emplace_back(plan_);
    }
  }

  DqaStatus operator()(size_t* spilled, DqaError* error) {
    pool_.run([this](unsigned thread) { work(thread); });
    *spilled = coded_.spilled();
    if (double* const seconds = program_.watch.seconds) {
      for (const Times& times : times_) {
        for (size_t i = 0; i < kOpCodes; ++i) seconds[i] += times.ops[i];
        seconds[kOpCodes] += times.requantize;
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
      if (plan_.ops[i].code != OpCode::kQuantizeInput) continue;
      largest_[thread * plan_.ops.size() + i] = measure(run, i, thread, threads_);
    }
    pool_.synchronize();
    if (thread == 0) begun_ = begin();
    pool_.synchronize();
    statuses_[thread] = begun_;
    if (begun_ != DQA_OK) return;
    for (size_t s = 0; s < plan_.stages.size(); ++s) {
      run.share = &run.worker.shares[s];
      if (program_.partition.together[s]) {
        stage_together(run, thread, plan_.stages[s]);
      } else {
        stage_apart(run, thread, s);
      }
    }
  }

  // Before the first stage.
  DqaStatus begin() {
    Run& run = runs_[0];
    for (size_t i = 0; i < plan_.ops.size(); ++i) {
      if (plan_.ops[i].code != OpCode::kQuantizeInput) continue;
      int32_t largest = 0;
      for (unsigned t = 0; t < threads_; ++t) {
        largest = std::max(largest, largest_[t * plan_.ops.size() + i]);
      }
      if (const DqaStatus status = set_slot(run, plan_.ops[i], largest)) return status;
    }
    for (const Op& op : plan_.ops) scale_arrays(run, op);
    return DQA_OK;
  }

  // Each thread computes its own strips.
  void stage_apart(Run& run, unsigned thread, size_t s) {
    const Stage& stage = plan_.stages[s];
    run.part = 0;
    run.parts = 1;
    save_rows(run);
    clear_line_buffers(run, stage);
    if (program_.partition.saves[s]) pool_.synchronize();
    for_each_rows(plan_, stage, run.share->strips, &progress_[thread],
                  [&](size_t index, Rows computed, Rows halo) {
                    if (computed.end > computed.first) {
                      if (lacks_zeros(run, index, computed)) {
                        clear_rows_behind(run, index, computed);
                      }
                      compute_once(run, thread, index, computed);
                    }
                    copy_halo(run, thread, s, index, halo);
                    publish_halo(run, thread, run.share->halo[index - stage.first],
                                 index, {computed.first, halo.end});
                    if (program_.watch.observer != nullptr) {
                      show(run, program_.watch, index, computed);
                    }
                    return DQA_OK;
                  });
    pool_.synchronize();
  }

  // Copies halo rows from the next thread, once it has published them.
  void copy_halo(const Run& run, unsigned thread, size_t s, size_t index, Rows rows) {
    if (rows.end <= rows.first) return;
    const Share& next = program_.partition.workers[thread + 1].shares[s];
    const HaloRows& halo = next.halo[index - plan_.stages[s].first];
    const std::atomic<uint32_t>& there =
        published_[(thread + 1) * plan_.ops.size() + index];
    ThreadPool::wait_until(
        [&] { return there.load(std::memory_order_acquire) >= rows.end; });
    const Buffer& b = run.buffer(plan_.ops[index].output);
    for (uint32_t y = rows.first; y < rows.end; ++y) {
      std::memcpy(run.framed_row(b, y), halo_row(run, halo, b, y), b.row_bytes());
    }
  }

  // Publishes copies of the rows that the previous thread needs.
  void publish_halo(const Run& run, unsigned thread, const HaloRows& halo, size_t index,
                    Rows rows) {
    const uint32_t first = std::max(rows.first, halo.rows.first);
    const uint32_t end = std::min(rows.end, halo.rows.end);
    if (end <= first) return;
    const Buffer& b = run.buffer(plan_.ops[index].output);
    for (uint32_t y = first; y < end; ++y) {
      std::memcpy(halo_row(run, halo, b, y), run.framed_row(b, y), b.row_bytes());
    }
    published_[thread * plan_.ops.size() + index].store(end, std::memory_order_release);
  }

  // Each thread computes a piece of each op.
  void stage_together(Run& run, unsigned thread, const Stage& stage) {
    run.part = thread;
    run.parts = threads_;
    if (thread == 0) clear_line_buffers(run, stage);
    pool_.synchronize();
    for_each_rows(plan_, stage, run.share->strips, &progress_[thread],
                  [&](size_t index, Rows todo, Rows) {
                    if (lacks_zeros(run, index, todo)) {
                      if (thread == 0) clear_rows_behind(run, index, todo);
                      pool_.synchronize();
                    }
                    compute_once(run, thread, index, todo);
                    pool_.synchronize();
                    if (program_.watch.observer != nullptr) {
                      if (thread == 0) show(run, program_.watch, index, todo);
                      // The next op may pack the row where it lies.
                      pool_.synchronize();
                    }
                    return DQA_OK;
                  });
    pool_.synchronize();
  }

  // A thread that failed still goes to every barrier.
  void compute_once(Run& run, unsigned thread, size_t index, Rows todo) {
    if (statuses_[thread] == DQA_OK) statuses_[thread] = timed(run, index, todo);
  }

  const Program& program_;
  const Plan& plan_;
  ThreadPool& pool_;
  const unsigned threads_;
  std::vector<Slot> slots_;
  CodedStores coded_;
  std::vector<int32_t> largest_;                  // of inputs, by thread and op
  std::vector<std::atomic<uint32_t>> published_;  // rows before this, by thread and op
  std::vector<Times> times_;
  std::vector<DqaStatus> statuses_;
  std::vector<Run> runs_;
  std::vector<Progress> progress_;
  DqaStatus begun_ = DQA_OK;
};

}  // namespace

DqaStatus execute(const Program& program, ThreadPool* pool, const void* const* inputs,
                  void* const* outputs, uint8_t* arena, size_t* spilled,
                  DqaError* error) {
  return Execution(program, pool, inputs, outputs, arena)(spilled, error);
}

}  // namespace dqa
