// Sharing the strips of a tensor among threads.
#ifndef DQA_CODEC_PARALLEL_H_
#define DQA_CODEC_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>

#include "dqa/codec.h"

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

// What went wrong in the first strip that failed.
struct Failure {
  DqaStatus status = DQA_OK;
  size_t strip = 0;
  DqaError error = {};
};

// Calls work(part, strip, &error) for every strip, on `parts` threads. A thread takes
// the next strip whenever it is free, so that one that starts late, or is held up by
// other programs, does less. Every strip before one that was taken has been taken too:
// the failure reported is always that of the first bad strip.
template <class Work>
DqaStatus run_strips(size_t parts, size_t strips, const Work& work, DqaError* error) {
  std::atomic<size_t> next{0};
  Failure failures[kMaxThreads];
  run_parts(parts, [&](size_t part) {
    Failure& failure = failures[part];
    for (;;) {
      failure.strip = next.fetch_add(1, std::memory_order_relaxed);
      if (failure.strip >= strips) return;
      failure.status = work(part, failure.strip, &failure.error);
      if (failure.status == DQA_OK) continue;
      next.store(strips, std::memory_order_relaxed);
      return;
    }
  });
  const Failure* first = nullptr;
  for (const Failure& failure : failures) {
    if (failure.status == DQA_OK) continue;
    if (first == nullptr || failure.strip < first->strip) first = &failure;
  }
  if (first == nullptr) return DQA_OK;
  if (error != nullptr) *error = first->error;
  return first->status;
}

// Lets strips through one behind the other, each with the sum of the sizes before it.
class Queue {
 public:
  // Whether all strips before this one have passed: `end` is where it begins, then.
  bool reached(size_t strip) const {
    return passed_.load(std::memory_order_acquire) == strip;
  }
  // Waits for the strips before this one, which other threads have taken already; then
  // lets the next one through.
  size_t pass(size_t strip, size_t size) {
    while (!reached(strip)) std::this_thread::yield();
    const size_t begin = end_;
    end_ += size;
    passed_.store(strip + 1, std::memory_order_release);
    return begin;
  }
  // For the thread whose strip it has reached, and once every thread is done.
  size_t end() const { return end_; }

 private:
  std::atomic<size_t> passed_{0};
  size_t end_ = 0;
};

}  // namespace dqa

#endif  // DQA_CODEC_PARALLEL_H_
