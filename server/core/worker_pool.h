// A few threads that run closures: tokenising and planning, apart from gRPC's threads and from those that encode.
#ifndef LONGEMBED_SERVER_CORE_WORKER_POOL_H_
#define LONGEMBED_SERVER_CORE_WORKER_POOL_H_

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace longembed {

// Multiple threads can call Run and RunAfter without external synchronization.
class WorkerPool {
 public:
  using Task = absl::AnyInvocable<void() &&>;

  // Tasks run in order of `due`. Long ones take half of the threads at most, so that short ones find one.
  struct Order {
    absl::Time due = absl::Now();
    bool is_long = false;
  };
  // For work over so much text, of a call that began (by its client's clock, admission.h) at `start`: due later the
  // longer it takes, so that short texts pass long ones, and long ones have their turn.
  static Order OrderOf(int64_t bytes, absl::Time start);
  // The same for work that nobody has admitted, of which there may be any amount: it takes half of the threads at most.
  static Order Unadmitted(int64_t bytes, absl::Time start);

  explicit WorkerPool(int threads);
  // Runs what is left, delayed tasks too, then joins.
  ~WorkerPool();

  void Run(Task task) { Run(std::move(task), Order{}); }
  void Run(Task task, const Order& order);
  void RunAfter(absl::Duration delay, Task task);

  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;
  using Tasks = std::multimap<absl::Time, Task>;  // By when they are due; equal ones in order of arrival.

  void RunThread();
  // The queue whose first task may run now; null when there is none.
  Tasks* Ready() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MoveDelayed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::mutex mutex_;
  std::condition_variable changed_;
  Tasks short_ ABSL_GUARDED_BY(mutex_);
  Tasks long_ ABSL_GUARDED_BY(mutex_);
  std::multimap<SteadyTime, Task> delayed_ ABSL_GUARDED_BY(mutex_);  // By when they join the short ones.
  int running_long_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::jthread> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_WORKER_POOL_H_
