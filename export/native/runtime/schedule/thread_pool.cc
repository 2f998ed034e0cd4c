#include "runtime/schedule/thread_pool.h"

#include <exception>

namespace dqa {
void Barrier::wait() {
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
  if (spin(over)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, over);
}

ThreadPool::ThreadPool(unsigned threads) {
  const std::lock_guard<std::mutex> closed(gate_);
  others_.reserve(threads - 1);
  while (others_.size() + 1 < threads) {
    try {
      others_.emplace_back(&ThreadPool::work, this,
                           static_cast<unsigned>(others_.size()) + 1);
    } catch (const std::exception&) {
      break;  // fewer do the same
    }
  }
  barrier_.expect(this->threads());
}

ThreadPool::~ThreadPool() {
  job_ = nullptr;
  synchronize();
  for (std::thread& other : others_) other.join();
}

void ThreadPool::work(unsigned thread) {
  gate_.lock();
  gate_.unlock();
  for (;;) {
    barrier_.wait();
    if (job_ == nullptr) return;
    (*job_)(thread);
    barrier_.wait();
  }
}

void ThreadPool::run(const std::function<void(unsigned)>& job) {
  job_ = &job;
  synchronize();
  job(0);
  synchronize();
}

}  // namespace dqa
