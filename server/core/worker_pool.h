// A few threads that tokenize and plan, apart from gRPC's threads and from those that encode, shared fairly by clients.
#ifndef LONGEMBED_SERVER_CORE_WORKER_POOL_H_
#define LONGEMBED_SERVER_CORE_WORKER_POOL_H_

#include <algorithm>
#include <map>
#include <optional>
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

// Whose work a task is, and how much.
struct TaskSize {
  std::string client;
  int64_t bytes = 0;                                    // Of text.
  absl::Duration time_left = absl::InfiniteDuration();  // Until the deadline.
};

// Multiple threads can call its methods without external synchronization.
//
// Long texts take all threads but one at most, so that short ones find one, and one client's half of those.
class WorkerPool {
 public:
  using Task = absl::AnyInvocable<void() &&>;

  // `max_wait`: that TryRun lets a task wait, by estimate. No threads: the owner calls Step, as a simulation
  // does. `clock` must outlive it.
  WorkerPool(int threads, const Clock& clock, absl::Duration max_wait = absl::InfiniteDuration());
  // Runs what is left, delayed tasks too, then joins.
  ~WorkerPool();

  // Runs the task in its client's turn.
  void Run(Task task, TaskSize size);
  void Run(Task task) { Run(std::move(task), {}); }
  // The same for work that no admission has seen. Errors: RESOURCE_EXHAUSTED, it would wait too long; the task is gone.
  absl::Status TryRun(Task task, TaskSize size);
  void RunAfter(absl::Duration delay, Task task);

  // Without threads: runs the next task; false when there is none.
  bool Step();
  // When the next delayed task joins the others; InfiniteFuture when there is none.
  absl::Time next_delayed() const;

  // How long such a task would wait for a thread, and then run; by how fast texts were worked on lately.
  absl::Duration ExpectedTime(const TaskSize& size) const;

  int threads() const { return static_cast<int>(threads_.size()); }
  int64_t waiting() const;  // Tasks.

 private:
  static constexpr int64_t kLongBytes = 64 << 10;  // Some ten milliseconds' work.

  struct Waiting {
    Task task;
    int64_t bytes = 0;
    bool is_long = false;
  };

  void RunThread();
  // Releases the lock while the task runs.
  void RunTask(std::string client, Waiting waiting) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Push(Task task, TaskSize size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<std::pair<std::string, Waiting>> Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MoveDelayed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration WaitOf(const TaskSize& size) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration TimeFor(double bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return absl::Seconds(bytes * seconds_per_byte_.value());
  }
  int long_threads() const { return std::max(1, threads() - 1); }
  int long_threads_of_client() const { return std::max(1, long_threads() / 2); }

  const Clock& clock_;
  const absl::Duration max_wait_;
  mutable Mutex mutex_;
  ConditionVariable changed_;
  FairQueue<Waiting> tasks_ ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Time, Task> delayed_ ABSL_GUARDED_BY(mutex_);  // By when they join the others.
  std::map<std::string, int> running_long_ ABSL_GUARDED_BY(mutex_);  // By client; of those that have any.
  int running_long_in_all_ ABSL_GUARDED_BY(mutex_) = 0;
  DecayedRatio seconds_per_byte_ ABSL_GUARDED_BY(mutex_){/*memory=*/kLongBytes, /*assumed=*/200e-9};
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::jthread> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_WORKER_POOL_H_
