// A few threads that run closures in order of arrival: tokenising and planning, apart from gRPC's threads and from
// those that encode.
#ifndef LONGEMBED_SERVER_CORE_WORKER_POOL_H_
#define LONGEMBED_SERVER_CORE_WORKER_POOL_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"

namespace longembed {

// Multiple threads can call Run without external synchronization.
class WorkerPool {
 public:
  using Task = absl::AnyInvocable<void() &&>;

  explicit WorkerPool(int threads);
  // Runs what is left, then joins.
  ~WorkerPool();

  void Run(Task task);

  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  void RunThread();

  std::mutex mutex_;
  std::condition_variable task_arrived_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::jthread> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_WORKER_POOL_H_
