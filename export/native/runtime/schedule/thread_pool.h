// Threads that work on one thing together.
#ifndef DQA_RUNTIME_CREW_H_
#define DQA_RUNTIME_CREW_H_

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dqa {

// How often a thread looks before it sleeps: at first without a pause for others, for
// some microseconds, then letting whoever has no core take this one, for a millisecond
// or two. Waking a thread takes as long as a small stage, or longer.
constexpr unsigned kLooks = 1000, kYields = 3000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Whether something is there at last that another thread, awake, is making.
template <class There>
bool look(There there) {
  for (unsigned look = 0; look < kLooks + kYields; ++look) {
    if (there()) return true;
    if (look < kLooks) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  return false;
}

// Where threads wait for each other: a while awake, then asleep.
class Barrier {
 public:
  // Before anybody waits.
  void expect(unsigned threads) { threads_ = threads; }
  void wait();

 private:
  unsigned threads_ = 1;
  std::atomic<unsigned> waiting_{0};
  std::atomic<unsigned> round_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// The calling thread and others, which sleep between jobs.
class Crew {
 public:
  // Starts up to threads - 1 others: what the system refuses is missing.
  explicit Crew(unsigned threads);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  unsigned threads() const { return static_cast<unsigned>(others_.size()) + 1; }

  // Calls job(0) here, and job(1), ... on the others; returns when all are done. One
  // call at a time.
  void run(const std::function<void(unsigned)>& job);

  // Inside a job: waits until every thread is here.
  void meet() {
    if (!others_.empty()) barrier_.wait();
  }

 private:
  void work(unsigned thread);

  std::vector<std::thread> others_;
  Barrier barrier_;
  // Closed until it is known how many there are.
  std::mutex gate_;
  const std::function<void(unsigned)>* job_ = nullptr;  // NULL: the end
};

}  // namespace dqa

#endif  // DQA_RUNTIME_CREW_H_
