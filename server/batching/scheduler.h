// Runs jobs on workers of its own, apart from all other threads. Whenever a worker is free, it forms a batch of what
// waits at that moment, and encodes it. One scheduler serves all models of a device; each model has a lane.
//
//   Scheduler scheduler({.workers = 2}, clock);
//   std::unique_ptr<Lane> lane = scheduler.AddLane(encoder, lane_options, observer);
//   auto job = std::make_shared<Job>(sequences, job_options, [](absl::StatusOr<JobResult> result) {});
//   absl::Status accepted = lane->Submit(job);   // On an error `done` is not called.
//   lane->Cancel(*job);                          // At any time.
//
// A free worker takes the most urgent sequence of all lanes and fills its batch with what else waits in that lane,
// leaving an equal share for each other free worker. When nothing waits, it helps a running batch (team.h), and stops
// helping as soon as something waits. At most half of the workers lead oversized sequences (cost_model.h), so that
// short requests find a worker. The others help with an oversized sequence while nothing else waits.
#ifndef LONGEMBED_SERVER_BATCHING_SCHEDULER_H_
#define LONGEMBED_SERVER_BATCHING_SCHEDULER_H_

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/encoder/encoder.h"
#include "model/encoder/team.h"
#include "server/batching/batch_queue.h"
#include "server/batching/cost_model.h"
#include "server/batching/decayed_ratio.h"
#include "server/batching/job.h"
#include "system/clock.h"
#include "system/cpu_time.h"
#include "system/mutex.h"

namespace longembed {

struct SchedulerOptions {
  int workers = 1;
  // Called once on each worker's thread before its first batch, for state that an engine keeps per thread.
  std::function<void()> initialize_worker;
  bool threads = true;  // False: the owner calls Step instead, as a simulation does.
  // Returns whether any of these threads runs or waits for a core. Tests replace it.
  std::function<bool(std::span<const pid_t> threads)> wants_cpu = [](std::span<const pid_t> threads) {
    return std::ranges::any_of(threads, WantsCpu);
  };
};

struct LaneOptions {
  BatchLimits batch;
  CostModel costs;
};

// Observes the scheduler's work, for metrics. Called on worker threads without locks held. Must not block.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnBatch(int64_t tokens, size_t sequences, absl::Duration inference) = 0;
  virtual void OnDequeued(absl::Duration queued) = 0;  // Once for each sequence that a batch takes.
  virtual void OnFailure() = 0;                        // The encoder failed a batch, not for lack of memory.
};

struct QueueState {
  size_t jobs = 0;
  int64_t tokens = 0;
  absl::Duration oldest;  // Time since the arrival of the job that waits longest; 0 if none waits.
  int running_batches = 0;
  // Time since a running batch should have ended; 0 if there is no such batch.
  absl::Duration hanging;
};

class Scheduler;

// A model's queue and encoder within a scheduler. Multiple threads can call its methods without external
// synchronization.
class Lane {
 public:
  // Answers waiting jobs with UNAVAILABLE, and waits for running batches of the lane.
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Queues a job. Errors: UNAVAILABLE (the lane is being destroyed), DEADLINE_EXCEEDED (the deadline has passed). The
  // queue has no bound of its own, because admission (admission/admission.h) bounds it.
  absl::Status Submit(std::shared_ptr<Job> job);

  // Answers the job with CANCELLED unless it has been answered. Its waiting sequences never reach the encoder, and a
  // running batch that has only cancelled jobs is stopped.
  void Cancel(Job& job);

  // Answers every job with `status`, including jobs whose batches run.
  void AnswerAll(const absl::Status& status);

  // Waits until every accepted job has been answered, but not longer than `timeout`. Returns whether all have been.
  bool WaitIdle(absl::Duration timeout);

  QueueState queue_state() const;

  // Adds a measurement to the estimate of throughput before any batch has run: one worker alone took `took` for `cost`.
  void SeedThroughput(int64_t cost, absl::Duration took);

  // Returns the time that the whole device needs for `cost` (CostModel), by its recent throughput; 0 while that is
  // unknown.
  absl::Duration WorkOf(int64_t cost) const { return absl::Seconds(static_cast<double>(cost) * seconds_per_cost_); }

  const LaneOptions& options() const { return options_; }

 private:
  friend class Scheduler;
  static constexpr double kMeasureMemory = 5;  // In seconds of a worker's time.

  Lane(Scheduler& scheduler, Encoder& encoder, const LaneOptions& options, SchedulerObserver* observer);

  struct RunningBatch {
    absl::Time began;
    absl::Duration cpu_began;  // ProcessCpuTime at `began`.
    absl::Duration time_limit;
    std::vector<std::shared_ptr<Job>> jobs;
  };
  // Returns the time limit of a batch: several times what one worker alone would need by recent throughput, plus
  // a few seconds.
  absl::Duration TimeLimit(const Batch& batch) const;

  Scheduler& scheduler_;
  Encoder& encoder_;
  const LaneOptions options_;
  SchedulerObserver* const observer_;

  // All guarded by the scheduler's mutex.
  BatchQueue queue_;
  bool closing_ = false;
  int64_t unanswered_ = 0;
  int running_batches_ = 0;
  std::list<RunningBatch> running_;
  DecayedRatio cost_per_second_{kMeasureMemory};  // Rate of a worker that leads batches, with help.
  std::atomic<double> seconds_per_cost_ = 0;      // For the whole device. Written under the mutex.
};

// Runs the jobs of its lanes. Multiple threads can call the methods of one Scheduler without external synchronization.
class Scheduler {
 public:
  // `clock` must outlive it.
  Scheduler(SchedulerOptions options, const Clock& clock);

  // Joins the workers. REQUIRES: its lanes have been destroyed.
  ~Scheduler();

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // `encoder` and `observer` (may be null) must outlive the lane, and the lane must not outlive the scheduler.
  std::unique_ptr<Lane> AddLane(Encoder& encoder, const LaneOptions& options, SchedulerObserver* observer);

  // Does what a worker would do next, where there are no threads. Returns false if there is nothing to do.
  bool Step();

  int workers() const { return options_.workers; }
  const Clock& clock() const { return clock_; }

 private:
  friend class Lane;

  // A worker's next action.
  struct Assignment {
    Lane* lane = nullptr;  // Null: help other workers.
    Batch batch;           // Empty if only jobs that are or would be late were found.
    bool oversized = false;
    std::vector<std::shared_ptr<Job>> expired;
    std::vector<std::shared_ptr<Job>> infeasible;
    std::list<Lane::RunningBatch>::iterator running;  // Valid if there is a lane.
  };

  void RunWorker();
  void Run(Assignment& assignment);
  absl::Status TooLateFor(const Lane& lane, const Job& job) const;
  // Waits for work. Returns false when the scheduler is being destroyed.
  bool AwaitAssignment(Assignment& assignment);
  void TakeBatch(Lane& lane, Assignment& assignment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Lane* MostUrgentLane() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool OversizedMayStart() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Must be called after every change of the queues or of the batches that may start.
  void UpdateWorkWaits() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void HelpOthers();
  void NotifyDequeued(Lane& lane, const Batch& batch) const;
  // Encodes the batch and answers its jobs. If the encoder fails a batch of several jobs, each job runs again by
  // itself, so that only those that cause the failure fail.
  void EncodeBatch(Lane& lane, const Batch& batch);
  // Wakes free workers to help with a batch (+1), or withdraws the invitation (-1).
  void InviteHelpers(int more);
  void FinishBatch(Assignment& assignment);
  bool IsCancelled(const Batch& batch) const;
  // Returns the time since the batch should have ended; 0 before that, or while the workers get too little CPU time for
  // a judgment.
  absl::Duration Hanging(const Lane::RunningBatch& batch, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Results of a batch's sequences in their order: a row for each span, or a sparse vector for each sequence.
  struct Rows {
    std::vector<std::vector<float>> dense;
    std::vector<SparseVector> sparse;
  };
  // Divides a block into its rows. Errors: RESOURCE_EXHAUSTED, out of memory.
  static absl::StatusOr<Rows> TakeRows(VectorBlock block);
  // Moves the rows into the results of their jobs, and frees the sequences of the batch. Returns the jobs that are now
  // complete.
  std::vector<std::shared_ptr<Job>> Deliver(Lane& lane, const Batch& batch, Rows& rows, absl::Time started,
                                            absl::Time finished);
  void Answer(Lane& lane, Job& job, absl::Status status);
  // Claims the right to call done_. Returns false if it was claimed before.
  bool Settle(Lane& lane, Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailBatch(Lane& lane, const Batch& batch, const absl::Status& status, absl::Time finished);
  void Measure(Lane& lane, int64_t cost, double seconds) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SchedulerOptions options_;
  const Clock& clock_;
  Team team_{options_.workers};

  mutable Mutex mutex_;
  ConditionVariable work_arrived_;
  ConditionVariable settled_;  // A job was answered or a batch ended.
  std::vector<Lane*> lanes_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int free_workers_ ABSL_GUARDED_BY(mutex_) = 0;  // Workers without a batch of their own.
  int running_oversized_ ABSL_GUARDED_BY(mutex_) = 0;
  // Seconds that workers spend helping, for each second that one leads a batch.
  DecayedRatio helping_ ABSL_GUARDED_BY(mutex_){Lane::kMeasureMemory};
  std::atomic<int> helpable_ = 0;         // Running batches whose encoders use helpers. Written under mutex_.
  std::atomic<bool> work_waits_ = false;  // Polled by helpers. True: a worker should take a batch, or end.

  std::vector<pid_t> worker_threads_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::jthread> workers_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_SCHEDULER_H_
