// A thread pool without threads, for systems that have none.
#include "runtime/schedule/thread_pool.h"

namespace dqa {

struct ThreadPool::Team {};

ThreadPool::ThreadPool(unsigned) {}

ThreadPool::~ThreadPool() = default;

bool ThreadPool::restart_after_fork() { return true; }

void ThreadPool::run(const std::function<void(unsigned)>& job) { job(0); }

void ThreadPool::synchronize() {}

void ThreadPool::relax(unsigned) {}

}  // namespace dqa
