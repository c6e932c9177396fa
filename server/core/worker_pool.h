// A few threads that tokenize, plan, and finish large answers, apart from gRPC's threads and from those that encode.
// Clients share them fairly.
#ifndef LONGEMBED_SERVER_CORE_WORKER_POOL_H_
#define LONGEMBED_SERVER_CORE_WORKER_POOL_H_

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/admission/fair_queue.h"
#include "server/batching/decayed_ratio.h"
#include "system/clock.h"
#include "system/mutex.h"

namespace longembed {

// The client that a task belongs to, and the task's size.
struct TaskSize {
  std::string client;
  int64_t bytes = 0;  // Bytes to tokenize, or as many as take as long; 0: the task takes no time to speak of.
  absl::Duration time_left = absl::InfiniteDuration();  // Until the deadline.
};

// Runs tasks in an order that is fair to clients. Multiple threads can call its methods without external
// synchronization.
//
// Long texts run on all threads but one at most, so that short texts find a thread. The long texts of one client run on
// at most half of those threads.
class WorkerPool {
 public:
  using Task = absl::AnyInvocable<void() &&>;

  // `max_wait` is the longest estimated wait that TryRun accepts. With no threads the owner calls Step, as a simulation
  // does. `clock` must outlive the pool.
  WorkerPool(int threads, const Clock& clock, absl::Duration max_wait = absl::InfiniteDuration());
  // Runs all remaining tasks, including delayed ones, then joins the threads.
  ~WorkerPool();

  // Queues a task; it runs in its client's turn.
  void Run(Task task, TaskSize size);
  void Run(Task task) { Run(std::move(task), {}); }
  // Queues a task that ends a call, and so frees what the call holds, before the client's other tasks. Its time says
  // nothing about that of tokenizing.
  void RunFirst(Task task, TaskSize size);
  // Queues a task that has not passed admission. Errors: RESOURCE_EXHAUSTED if it would wait too long or miss its
  // deadline, and DEADLINE_EXCEEDED if that has passed; the task is then destroyed.
  absl::Status TryRun(Task task, TaskSize size);
  void RunAfter(absl::Duration delay, Task task);

  // Runs the next task, where there are no threads. Returns false if there is none.
  bool Step();
  // Returns when the next delayed task joins the queue; InfiniteFuture if there is none.
  absl::Time next_delayed() const;

  // Returns how long a task of this size would take, including the wait for a thread, by the recent speed of the pool.
  absl::Duration ExpectedTime(const TaskSize& size) const;

  // Returns the longest that any client's next task would wait for a thread.
  absl::Duration longest_wait() const;

  // Returns the time since the tasks of all threads should have ended; 0 while any thread is free or on time.
  absl::Duration hanging() const;

  int threads() const { return static_cast<int>(threads_.size()); }
  int64_t waiting() const;  // Number of waiting tasks.

 private:
  static constexpr int64_t kLongBytes = 64 << 10;  // Text for about ten milliseconds of work.
  // A task with at least this much text measures the time per byte, because tokenizing takes most of its time. In a
  // task with less text, the measured time per byte is subtracted, and the rest is overhead.
  static constexpr int64_t kMeasuredBytes = 4 << 10;

  struct Waiting {
    Task task;
    int64_t bytes = 0;
    bool is_long = false;
    bool is_text = true;  // Its time is that of tokenizing.
  };

  void RunThread();
  // Releases the lock while the task runs.
  void RunTask(std::string client, Waiting waiting) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Push(Task task, TaskSize size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static double CostOf(const TaskSize& size);
  static Waiting ToWaiting(Task task, const TaskSize& size);
  std::optional<std::pair<std::string, Waiting>> Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MoveDelayed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration WaitOf(const TaskSize& size) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double SecondsFor(int64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Learns from a task with `bytes` bytes of text.
  void Measure(int64_t bytes, double seconds) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int long_threads() const { return std::max(1, threads() - 1); }
  int long_threads_of_client() const { return std::max(1, long_threads() / 2); }

  const Clock& clock_;
  const absl::Duration max_wait_;
  mutable Mutex mutex_;
  ConditionVariable changed_;
  FairQueue<Waiting> tasks_ ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Time, Task> delayed_ ABSL_GUARDED_BY(mutex_);  // Time of joining tasks_ -> task.
  std::multiset<absl::Time> due_ ABSL_GUARDED_BY(mutex_);            // Times when the running tasks should have ended.
  std::map<std::string, int> running_long_ ABSL_GUARDED_BY(mutex_);  // Client -> running long tasks.
  int running_long_in_all_ ABSL_GUARDED_BY(mutex_) = 0;
  DecayedRatio seconds_per_byte_ ABSL_GUARDED_BY(mutex_){/*memory=*/kLongBytes, /*assumed=*/200e-9};
  DecayedRatio seconds_per_task_ ABSL_GUARDED_BY(mutex_){/*memory=*/64, /*assumed=*/20e-6};  // Overhead.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::jthread> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_WORKER_POOL_H_
