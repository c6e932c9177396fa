#include "server/core/worker_pool.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "server/errors/errors.h"

namespace longembed {

WorkerPool::WorkerPool(int threads, const Clock& clock, absl::Duration max_wait) : clock_(clock), max_wait_(max_wait) {
  const MutexLock lock(mutex_);  // The new threads read threads_.size().
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { RunThread(); });
}

WorkerPool::~WorkerPool() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  while (threads_.empty() && Step()) continue;
  for (std::jthread& thread : threads_) thread.join();
}

void WorkerPool::Run(Task task, TaskSize size) {
  {
    const MutexLock lock(mutex_);
    Push(std::move(task), std::move(size));
  }
  changed_.NotifyOne();
}

absl::Status WorkerPool::TryRun(Task task, TaskSize size) {
  if (size.time_left <= absl::ZeroDuration()) return DeadlineExceeded();
  {
    const MutexLock lock(mutex_);
    const absl::Duration wait = WaitOf(size);
    if (wait > max_wait_)
      return Overloaded(Overload::kQueueWait, {.expected_wait = wait, .max_wait = max_wait_}, RetryDelayFor(wait / 2));
    if (const absl::Duration done = wait + absl::Seconds(SecondsFor(size.bytes)); done > size.time_left)
      return Overloaded(Overload::kDeadline, {.expected_wait = done, .max_wait = size.time_left},
                        RetryDelayFor(done / 2));
    Push(std::move(task), std::move(size));
  }
  changed_.NotifyOne();
  return absl::OkStatus();
}

void WorkerPool::RunAfter(absl::Duration delay, Task task) {
  {
    const MutexLock lock(mutex_);
    delayed_.emplace(clock_.Now() + delay, std::move(task));
  }
  changed_.NotifyOne();
}

void WorkerPool::RunFirst(Task task, TaskSize size) {
  {
    const MutexLock lock(mutex_);
    Waiting waiting = ToWaiting(std::move(task), size);
    waiting.is_text = false;
    tasks_.PushFirst(size.client, CostOf(size), std::move(waiting));
  }
  changed_.NotifyOne();
}

double WorkerPool::CostOf(const TaskSize& size) {
  // The overhead of a task, as bytes of text.
  constexpr int64_t kTaskBytes = 64;
  return static_cast<double>(size.bytes + kTaskBytes);
}

WorkerPool::Waiting WorkerPool::ToWaiting(Task task, const TaskSize& size) {
  return {.task = std::move(task), .bytes = size.bytes, .is_long = size.bytes > kLongBytes};
}

void WorkerPool::Push(Task task, TaskSize size) {
  tasks_.Push(size.client, CostOf(size), ToWaiting(std::move(task), size));
}

absl::Duration WorkerPool::WaitOf(const TaskSize& size) const {
  const bool is_long = size.bytes > kLongBytes;
  const auto seconds_of = [this, is_long](const Waiting& waiting) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return waiting.is_long == is_long ? SecondsFor(waiting.bytes) : 0.0;
  };
  return absl::Seconds(tasks_.SumBefore(size.client, seconds_of)) / (is_long ? long_threads_of_client() : 1);
}

double WorkerPool::SecondsFor(int64_t bytes) const {
  return bytes == 0 ? 0 : seconds_per_task_.value() + static_cast<double>(bytes) * seconds_per_byte_.value();
}

void WorkerPool::Measure(int64_t bytes, double seconds) {
  const auto text = static_cast<double>(bytes);
  if (bytes >= kMeasuredBytes) return seconds_per_byte_.Add(seconds, text);
  if (bytes > 0) seconds_per_task_.Add(std::max(0.0, seconds - text * seconds_per_byte_.value()), 1);
}

absl::Duration WorkerPool::ExpectedTime(const TaskSize& size) const {
  const MutexLock lock(mutex_);
  return WaitOf(size) + absl::Seconds(SecondsFor(size.bytes));
}

absl::Duration WorkerPool::longest_wait() const {
  const MutexLock lock(mutex_);
  const auto seconds = [this](bool is_long) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return tasks_.Sum([this, is_long](const Waiting& waiting) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return waiting.is_long == is_long ? SecondsFor(waiting.bytes) : 0.0;
    });
  };
  return absl::Seconds(std::max(seconds(false), seconds(true) / long_threads_of_client()));
}

absl::Duration WorkerPool::hanging() const {
  const MutexLock lock(mutex_);
  if (std::ssize(due_) < std::max(1, threads())) return absl::ZeroDuration();
  return std::max(absl::ZeroDuration(), clock_.Now() - *due_.rbegin());
}

int64_t WorkerPool::waiting() const {
  const MutexLock lock(mutex_);
  return static_cast<int64_t>(tasks_.size());
}

void WorkerPool::MoveDelayed() {
  const absl::Time now = stopping_ ? absl::InfiniteFuture() : clock_.Now();
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    Push(std::move(delayed_.extract(delayed_.begin()).mapped()), {});
  }
}

std::optional<std::pair<std::string, WorkerPool::Waiting>> WorkerPool::Take() {
  MoveDelayed();
  return tasks_.Pop([this](const std::string& client, const Waiting& waiting) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!waiting.is_long) return true;
    const auto own = running_long_.find(client);
    return running_long_in_all_ < long_threads() &&
           (own == running_long_.end() || own->second < long_threads_of_client());
  });
}

absl::Time WorkerPool::next_delayed() const {
  const MutexLock lock(mutex_);
  return delayed_.empty() ? absl::InfiniteFuture() : delayed_.begin()->first;
}

bool WorkerPool::Step() {
  MutexLock lock(mutex_);
  std::optional<std::pair<std::string, Waiting>> taken = Take();
  if (taken.has_value()) RunTask(std::move(taken->first), std::move(taken->second));
  return taken.has_value();
}

void WorkerPool::RunThread() {
  MutexLock lock(mutex_);
  while (true) {
    if (std::optional<std::pair<std::string, Waiting>> taken = Take(); taken.has_value()) {
      // Passes the notification on: this thread may have been the only one that was notified, or that waited for
      // delayed tasks.
      if (!tasks_.empty() || !delayed_.empty()) changed_.NotifyOne();
      RunTask(std::move(taken->first), std::move(taken->second));
    } else if (stopping_ && tasks_.empty()) {
      changed_.NotifyAll();  // Other threads may have waited for long tasks that are done now.
      return;
    } else if (delayed_.empty()) {
      changed_.Wait(lock);
    } else {
      changed_.WaitFor(lock, delayed_.begin()->first - clock_.Now());
    }
  }
}

void WorkerPool::RunTask(std::string client, Waiting waiting) {
  if (waiting.is_long) {
    ++running_long_in_all_;
    ++running_long_[client];
  }
  // Generous, because texts differ and threads may wait for a core.
  const absl::Time began = clock_.Now();
  const auto due = due_.insert(began + absl::Seconds(10) + 20 * absl::Seconds(SecondsFor(waiting.bytes)));
  mutex_.Unlock();
  std::move(waiting.task)();
  waiting.task = nullptr;
  const absl::Duration took = clock_.Now() - began;
  mutex_.Lock();
  due_.erase(due);
  if (waiting.is_text) Measure(waiting.bytes, absl::ToDoubleSeconds(took));
  if (!waiting.is_long) return;
  --running_long_in_all_;
  if (--running_long_[client] == 0) running_long_.erase(client);
  assert(running_long_in_all_ >= 0 && running_long_.empty() == (running_long_in_all_ == 0));
  if (!tasks_.empty()) changed_.NotifyOne();  // A long task that had to wait may run now.
}

}  // namespace longembed
