// Runs jobs: workers of its own, apart from every other thread, form a batch whenever one of them is free (late
// binding, no lingering) and encode it.
//
//   Scheduler scheduler(options, encoder, clock, observer);
//   auto job = std::make_shared<Job>(sequences, job_options, [](absl::StatusOr<JobResult> result) { ... });
//   absl::Status accepted = scheduler.Submit(job);   // On an error `done` is not called.
//   scheduler.Cancel(*job);                          // At any time.
#ifndef LONGEMBED_SERVER_BATCHING_SCHEDULER_H_
#define LONGEMBED_SERVER_BATCHING_SCHEDULER_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/encoder/encoder.h"
#include "server/batching/batch_queue.h"
#include "server/batching/clock.h"
#include "server/batching/job.h"

namespace longembed {

struct SchedulerOptions {
  int workers = 1;
  BatchLimits batch;
  // More waiting tokens than this and Submit refuses with RESOURCE_EXHAUSTED. Tune: the wait that clients bear, times
  // tokens a second.
  int64_t max_queued_tokens = 1 << 20;
  // Called once on each worker's thread before its first batch, for what an engine keeps per thread.
  std::function<void()> initialize_worker;
};

// What it sees of its own work, for metrics. Called on worker threads, without locks held; must not block.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnBatch(int64_t tokens, size_t sequences, absl::Duration inference) = 0;
  virtual void OnDequeued(absl::Duration queued) = 0;  // Once for each sequence that a batch takes.
};

struct QueueState {
  size_t jobs = 0;
  int64_t tokens = 0;
  absl::Duration oldest;  // Since the arrival of the job that waits longest; 0 when none does.
};

// Multiple threads can call the methods of one Scheduler without external synchronization.
class Scheduler {
 public:
  // All three must outlive it; `observer` may be null.
  Scheduler(SchedulerOptions options, Encoder& encoder, const Clock& clock, SchedulerObserver* observer);

  // Answers what still waits with UNAVAILABLE, finishes the batches that run, and joins the workers.
  ~Scheduler();

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Errors: RESOURCE_EXHAUSTED (overload), UNAVAILABLE (it is being destroyed), DEADLINE_EXCEEDED (it has passed
  // already).
  absl::Status Submit(std::shared_ptr<Job> job);

  // Answers the job with CANCELLED unless it has been answered. Its waiting sequences never reach the encoder, and a
  // batch that runs for cancelled jobs only is given up between layers.
  void Cancel(Job& job);

  // Waits until every accepted job has been answered, at most for `timeout`. Returns whether that is so.
  bool WaitIdle(absl::Duration timeout);

  QueueState queue_state() const;

 private:
  void RunWorker();
  void EncodeBatch(const Batch& batch);
  bool NobodyWaits(const Batch& batch) const;
  // Puts the rows of a batch into the results of its jobs; `done` of those now complete.
  std::vector<std::shared_ptr<Job>> Deliver(const Batch& batch, const VectorBlock& vectors, absl::Time started,
                                            absl::Time finished);
  void Answer(const std::shared_ptr<Job>& job, absl::Status status);
  // Claims the right to call done_; false when somebody has.
  bool Settle(Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration ExpectedWait() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SchedulerOptions options_;
  Encoder& encoder_;
  const Clock& clock_;
  SchedulerObserver* const observer_;

  // std::mutex rather than absl::Mutex: ThreadSanitizer sees through it also where a distribution's absl is not
  // instrumented.
  mutable std::mutex mutex_;
  std::condition_variable work_arrived_;
  std::condition_variable idle_;
  BatchQueue queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t unanswered_ ABSL_GUARDED_BY(mutex_) = 0;
  double tokens_per_second_ ABSL_GUARDED_BY(mutex_) = 0;  // Smoothed, of one worker; 0 until a batch has run.

  std::vector<std::jthread> workers_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_SCHEDULER_H_
