#include "runtime/schedule/thread_pool.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace dqa {
namespace {

// A waiting thread spins for some microseconds, then yields its core between checks for
// a millisecond or two, then sleeps. Waking a thread takes as long as a small stage, or
// longer.
constexpr unsigned kSpins = 1000, kYields = 3000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void relax_for(unsigned checks) {
  if (checks < kSpins) {
    pause();
  } else {
    std::this_thread::yield();
  }
}

// Where threads wait for each other: they spin for a while, then sleep.
class Barrier {
 public:
  // Sets how many threads wait here. Call it before any does.
  void expect(unsigned threads) { threads_ = threads; }

  void wait() {
    const unsigned round = round_.load(std::memory_order_acquire);
    if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      waiting_.store(0, std::memory_order_relaxed);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        round_.store(round + 1, std::memory_order_release);
      }
      changed_.notify_all();
      return;
    }
    const auto over = [&] { return round_.load(std::memory_order_acquire) != round; };
    for (unsigned checks = 0; checks < kSpins + kYields; ++checks) {
      if (over()) return;
      relax_for(checks);
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, over);
  }

 private:
  unsigned threads_ = 1;
  std::atomic<unsigned> waiting_{0};
  std::atomic<unsigned> round_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace

struct ThreadPool::Team {
  explicit Team(unsigned threads) {
    const std::lock_guard<std::mutex> closed(gate);
    others = std::make_unique<std::thread[]>(threads - 1);
    for (; count + 1 < threads; ++count) {
      try {
        others[count] = std::thread(&Team::work, this, count + 1);
      } catch (const std::exception&) {
        break;  // fewer do the same
      }
    }
    barrier.expect(count + 1);
  }

  ~Team() {
    job = nullptr;
    if (count > 0) barrier.wait();
    for (unsigned i = 0; i < count; ++i) others[i].join();
  }

  void work(unsigned thread) {
    gate.lock();
    gate.unlock();
    for (;;) {
      barrier.wait();
      if (job == nullptr) return;
      (*job)(thread);
      barrier.wait();
    }
  }

  // Out of line: it is large, and called rarely.
  [[gnu::noinline]] static std::unique_ptr<Team> start(unsigned threads) {
    return std::make_unique<Team>(threads);
  }

  std::unique_ptr<std::thread[]> others;
  unsigned count = 0;
  Barrier barrier;
  std::mutex gate;  // locked until all threads have been started
  const std::function<void(unsigned)>* job = nullptr;  // NULL: threads end
};

ThreadPool::ThreadPool(unsigned threads) : process_(getpid()) {
  if (threads < 2) return;
  team_ = Team::start(threads);
  threads_ = team_->count + 1;
}

ThreadPool::~ThreadPool() {
  // A forked child has no threads to join, only what they left in memory.
  if (process_ != getpid()) leave_in_memory();
}

void ThreadPool::leave_in_memory() { [[maybe_unused]] Team* left = team_.release(); }

bool ThreadPool::restart_after_fork() {
  const long process = getpid();
  if (process_ == process || team_ == nullptr) return true;
  auto team = Team::start(threads_);
  if (team->count + 1 != threads_) return false;
  // The parent's threads may hold its locks: the old team cannot be taken apart.
  leave_in_memory();
  team_ = std::move(team);
  process_ = process;
  return true;
}

void ThreadPool::run(const std::function<void(unsigned)>& job) {
  if (team_ != nullptr) team_->job = &job;
  synchronize();
  job(0);
  synchronize();
}

void ThreadPool::synchronize() {
  if (team_ != nullptr) team_->barrier.wait();
}

void ThreadPool::relax(unsigned checks) { relax_for(checks); }

}  // namespace dqa
