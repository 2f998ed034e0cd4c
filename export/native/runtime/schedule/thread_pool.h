// The threads of one runtime. portable/single_thread.cc stands in for thread_pool.cc
// where there are no threads.
#ifndef DQA_RUNTIME_SCHEDULE_THREAD_POOL_H_
#define DQA_RUNTIME_SCHEDULE_THREAD_POOL_H_

#include <functional>
#include <memory>

namespace dqa {

// The calling thread and some others, which sleep between jobs.
class ThreadPool {
 public:
  // Starts threads - 1 others, or fewer if the system refuses more.
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned threads() const { return threads_; }

  // Call this before each run. In a forked child it starts the threads again, as a fork
  // copies only the thread that calls it. False if the system now refuses some.
  bool restart_after_fork();

  // Calls job(0) on this thread and job(1), job(2), ... on the others. Returns when all
  // are done. Only one call at a time.
  void run(const std::function<void(unsigned)>& job);

  // Inside a job: waits until every thread has called this.
  void synchronize();

  // Inside a job: waits until `is_ready()`, which another thread makes true soon.
  template <class IsReady>
  static void wait_until(IsReady is_ready) {
    for (unsigned checks = 0; !is_ready(); ++checks) relax(checks);
  }

 private:
  struct Team;

  // What a thread does between two checks, after so many of them.
  static void relax(unsigned checks);
  // Forgets the team without joining it.
  void leave_in_memory();

  unsigned threads_ = 1;
  long process_ = 0;            // that started the team
  std::unique_ptr<Team> team_;  // the other threads; NULL: there are none
};

}  // namespace dqa

#endif  // DQA_RUNTIME_SCHEDULE_THREAD_POOL_H_
