#include "server/core/worker_pool.h"

#include <algorithm>
#include <utility>

namespace longembed {

WorkerPool::Order WorkerPool::OrderOf(int64_t bytes, absl::Time start) {
  constexpr int64_t kLongBytes = 64 << 10;                     // Some ten milliseconds' work.
  constexpr absl::Duration kPerByte = absl::Nanoseconds(200);  // What tokenisers take, about.
  return {.due = std::max(absl::Now(), start) + bytes * kPerByte, .is_long = bytes > kLongBytes};
}

WorkerPool::Order WorkerPool::Unadmitted(int64_t bytes, absl::Time start) {
  return {.due = OrderOf(bytes, start).due, .is_long = true};
}

WorkerPool::WorkerPool(int threads) {
  const std::lock_guard lock(mutex_);  // They look at how many they are.
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { RunThread(); });
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::jthread& thread : threads_) thread.join();
}

void WorkerPool::Run(Task task, const Order& order) {
  {
    const std::lock_guard lock(mutex_);
    (order.is_long ? long_ : short_).emplace(order.due, std::move(task));
  }
  changed_.notify_one();
}

void WorkerPool::RunAfter(absl::Duration delay, Task task) {
  {
    const std::lock_guard lock(mutex_);
    delayed_.emplace(std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(delay), std::move(task));
  }
  changed_.notify_one();
}

void WorkerPool::MoveDelayed() {
  const SteadyTime now = stopping_ ? SteadyTime::max() : std::chrono::steady_clock::now();
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    short_.emplace(absl::Now(), std::move(delayed_.extract(delayed_.begin()).mapped()));
  }
}

WorkerPool::Tasks* WorkerPool::Ready() {
  const int max_long = std::max(1, static_cast<int>(threads_.size()) / 2);
  const bool long_may_run = !long_.empty() && running_long_ < max_long;
  if (short_.empty()) return long_may_run ? &long_ : nullptr;
  return long_may_run && long_.begin()->first < short_.begin()->first ? &long_ : &short_;
}

void WorkerPool::RunThread() {
  std::unique_lock lock(mutex_);
  while (true) {
    MoveDelayed();
    Tasks* const tasks = Ready();
    if (tasks == nullptr) {
      if (stopping_ && short_.empty() && long_.empty()) {
        // Others may have waited for long tasks that are gone now.
        changed_.notify_all();
        return;
      }
      if (delayed_.empty()) {
        changed_.wait(lock);
      } else {
        changed_.wait_until(lock, delayed_.begin()->first);
      }
      continue;
    }
    const bool is_long = tasks == &long_;
    Task task = std::move(tasks->extract(tasks->begin()).mapped());
    running_long_ += is_long ? 1 : 0;
    // This thread may have been the only one that was told of the others, or that watched the time for them.
    if (!short_.empty() || !long_.empty() || !delayed_.empty()) changed_.notify_one();
    lock.unlock();
    std::move(task)();
    task = nullptr;
    lock.lock();
    running_long_ -= is_long ? 1 : 0;
    // A long task that had to wait for its turn.
    if (is_long && !long_.empty()) changed_.notify_one();
  }
}

}  // namespace longembed
