// How the stages of a plan are partitioned among threads.
#ifndef DQA_RUNTIME_SCHEDULE_THREAD_PARTITION_H_
#define DQA_RUNTIME_SCHEDULE_THREAD_PARTITION_H_

#include <vector>

#include "runtime/plan/plan.h"
#include "runtime/schedule/row_schedule.h"

namespace dqa {

// A copy of a stored row, made before a stage begins: another thread may overwrite the
// row before this thread has read it.
struct Saved {
  uint16_t buffer;
  uint32_t row;
  size_t offset;  // of the copy in the arena
};

// Halo rows: rows of a line buffer that a thread computes and that the previous thread
// needs too, for the windows at the end of its last strip. It copies them.
struct HaloRows {
  Rows rows = {0, 0};
  size_t offset = 0;  // of the copies in the arena
};

// The work of one thread in one stage.
struct Share {
  Strips strips;
  std::vector<Saved> saved;    // by row
  std::vector<HaloRows> halo;  // by op of the stage
};

// The memory and the work of one thread.
struct Worker {
  std::vector<Buffer> buffers;  // the plan's, but with the thread's own line buffers
  size_t row_scratch;           // offset in the arena
  std::vector<Share> shares;    // by stage
};

struct Partition {
  std::vector<Worker> workers;
  // By stage: whether all threads share the work of each op instead of having strips
  // of their own. This is faster for stages with few rows.
  std::vector<bool> together;
  std::vector<bool> saves;  // by stage: whether any thread saves rows before it
  size_t arena = 0;         // bytes for all threads
};

// Thread 0 alone needs `plan.arena` bytes. The results of a run do not depend on the
// number of threads.
Partition partition_stages(const Plan& plan, unsigned threads);

}  // namespace dqa

#endif  // DQA_RUNTIME_SCHEDULE_THREAD_PARTITION_H_
