// Executing a plan, strip by strip.
#ifndef DQA_RUNTIME_SCHEDULE_EXECUTE_H_
#define DQA_RUNTIME_SCHEDULE_EXECUTE_H_

#include "dqa/runtime.h"
#include "runtime/schedule/run.h"
#include "runtime/schedule/thread_pool.h"

namespace dqa {

// Who observes a run.
struct Watch {
  DqaObserver observer = nullptr;
  void* user = nullptr;
  double* seconds = nullptr;  // by op code, then of requantizing
};

// What stays the same from run to run.
struct Program {
  Plan plan;
  const RuntimeKernels* kernels = nullptr;
  std::vector<Prepared> prepared;  // by op
  Partition partition;
  Watch watch;
};

// Sets `spilled` to the bytes of coded rows that did not fit the arena.
DqaStatus execute(const Program& program, ThreadPool* pool, const void* const* inputs,
                  void* const* outputs, uint8_t* arena, size_t* spilled,
                  DqaError* error);

}  // namespace dqa

#endif  // DQA_RUNTIME_SCHEDULE_EXECUTE_H_
