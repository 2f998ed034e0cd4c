// Running a function on several threads.
#ifndef DQA_PARALLEL_H_
#define DQA_PARALLEL_H_

#include <cstddef>
#include <system_error>
#include <thread>

namespace dqa {

constexpr size_t kMaxThreads = 64;

// Calls work(0), ..., work(parts - 1), parts <= kMaxThreads, the last one on the
// calling thread. A thread that the system refuses costs time, nothing else: its part
// is done here.
template <class Work>
void run_parts(size_t parts, const Work& work) {
  std::thread threads[kMaxThreads];
  for (size_t part = 0; part + 1 < parts; ++part) {
    try {
      threads[part] = std::thread(work, part);
    } catch (const std::system_error&) {
      work(part);
    }
  }
  work(parts - 1);
  for (size_t part = 0; part + 1 < parts; ++part) {
    if (threads[part].joinable()) threads[part].join();
  }
}

}  // namespace dqa

#endif  // DQA_PARALLEL_H_
