// Dividing the stages of a plan among threads.
#ifndef DQA_RUNTIME_DIVIDE_H_
#define DQA_RUNTIME_DIVIDE_H_

#include <vector>

#include "runtime/plan/plan.h"
#include "runtime/schedule/row_schedule.h"

namespace dqa {

// A stored row that is kept aside while a stage runs: another thread may write there
// before this one has read it.
struct Saved {
  uint16_t buffer;
  uint32_t row;
  size_t offset;  // of the copy in the arena
};

// Rows of a ring that a thread gives to the one before it, whose last strips need what
// its first do.
struct Given {
  Rows rows = {0, 0};
  size_t offset = 0;  // of the copies in the arena
};

// What a thread does in a stage.
struct Share {
  Strips strips;
  std::vector<Saved> saved;  // by row
  std::vector<Given> given;  // by op of the stage
};

// What belongs to a thread.
struct Worker {
  std::vector<Buffer> buffers;  // the plan's, with rings of its own
  size_t row_scratch;           // offset in the arena
  std::vector<Share> shares;    // by stage
};

struct Division {
  std::vector<Worker> workers;
  // Whether all threads work on the same strips of a stage, op by op: for stages with
  // few rows.
  std::vector<bool> together;
  std::vector<bool> saves;  // whether any thread saves rows in front of a stage
  size_t arena = 0;         // bytes, for all threads
};

// The first thread alone needs `plan.arena`. What a division computes does not depend
// on the number of threads.
Division divide(const Plan& plan, unsigned threads);

}  // namespace dqa

#endif  // DQA_RUNTIME_DIVIDE_H_
