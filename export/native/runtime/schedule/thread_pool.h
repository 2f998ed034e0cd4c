// The threads of one runtime.
#ifndef DQA_RUNTIME_SCHEDULE_THREAD_POOL_H_
#define DQA_RUNTIME_SCHEDULE_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dqa {

// A waiting thread spins for some microseconds, then yields its core between checks for
// a millisecond or two, then sleeps. Waking a thread takes as long as a small stage, or
// longer.
constexpr unsigned kSpins = 1000, kYields = 3000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits, without sleeping, until `is_ready()`; false if that takes too long.
template <class IsReady>
bool spin(IsReady is_ready) {
  for (unsigned check = 0; check < kSpins + kYields; ++check) {
    if (is_ready()) return true;
    if (check < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  return false;
}

// Where threads wait for each other: they spin for a while, then sleep.
class Barrier {
 public:
  // Sets how many threads wait here. Call it before any does.
  void expect(unsigned threads) { threads_ = threads; }
  void wait();

 private:
  unsigned threads_ = 1;
  std::atomic<unsigned> waiting_{0};
  std::atomic<unsigned> round_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// The calling thread and some others, which sleep between jobs.
class ThreadPool {
 public:
  // Starts threads - 1 others, or fewer if the system refuses more.
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned threads() const { return static_cast<unsigned>(others_.size()) + 1; }

  // Calls job(0) on this thread and job(1), job(2), ... on the others. Returns when all
  // are done. Only one call at a time.
  void run(const std::function<void(unsigned)>& job);

  // Inside a job: waits until every thread has called this.
  void synchronize() {
    if (!others_.empty()) barrier_.wait();
  }

 private:
  void work(unsigned thread);

  std::vector<std::thread> others_;
  Barrier barrier_;
  // Locked until all threads have been started.
  std::mutex gate_;
  const std::function<void(unsigned)>* job_ = nullptr;  // NULL: threads end
};

}  // namespace dqa

#endif  // DQA_RUNTIME_SCHEDULE_THREAD_POOL_H_
