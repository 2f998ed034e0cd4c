// Executing a plan, strip by strip.
#ifndef DQA_RUNTIME_EXECUTE_H_
#define DQA_RUNTIME_EXECUTE_H_

#include "runtime/schedule/thread_pool.h"
#include "dqa/runtime.h"
#include "runtime/schedule/run.h"

namespace dqa {

// Who watches a run.
struct Watch {
  DqaObserver observer = nullptr;
  void* user = nullptr;
  double* seconds = nullptr;  // by code, and requantizing
};

// What stays the same from run to run.
struct Program {
  Plan plan;
  const RuntimeKernels* kernels = nullptr;
  std::vector<Prepared> prepared;  // by op
  Division division;
  Watch watch;
};

// `spilled`: bytes of coded rows that the arena had no room for.
DqaStatus execute(const Program& program, Crew* crew, const void* const* inputs,
                  void* const* outputs, uint8_t* arena, size_t* spilled,
                  DqaError* error);

}  // namespace dqa

#endif  // DQA_RUNTIME_EXECUTE_H_
