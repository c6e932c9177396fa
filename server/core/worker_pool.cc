#include "server/core/worker_pool.h"

#include <utility>

namespace longembed {

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { RunThread(); });
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  task_arrived_.notify_all();
  threads_.clear();  // Joins.
}

void WorkerPool::Run(Task task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  task_arrived_.notify_one();
}

void WorkerPool::RunThread() {
  while (true) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      task_arrived_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    std::move(task)();
  }
}

}  // namespace longembed
