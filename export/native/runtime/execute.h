// Executing a plan, strip by strip.
#ifndef DQA_RUNTIME_EXECUTE_H_
#define DQA_RUNTIME_EXECUTE_H_

#include "dqa/runtime.h"
#include "run.h"

namespace dqa {

// Who watches a run.
struct Watch {
  DqaObserver observer = nullptr;
  void* user = nullptr;
  double* seconds = nullptr;
};

DqaStatus execute(Run& run, const Watch& watch);

}  // namespace dqa

#endif  // DQA_RUNTIME_EXECUTE_H_
