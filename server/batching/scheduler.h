// Runs jobs: workers of its own, apart from every other thread, form a batch whenever one of them is free (late
// binding, no lingering) and encode it. One scheduler serves all models of a device; each has a lane.
//
//   Scheduler scheduler({.workers = 2}, clock);
//   std::unique_ptr<Lane> lane = scheduler.AddLane(encoder, lane_options, observer);
//   auto job = std::make_shared<Job>(sequences, job_options, [](absl::StatusOr<JobResult> result) {});
//   absl::Status accepted = lane->Submit(job);   // On an error `done` is not called.
//   lane->Cancel(*job);                          // At any time.
//
// A free worker takes the most urgent sequence of all lanes and fills its batch with what waits beside
// it, leaving as much for each other worker that is free. When nothing waits, it helps a batch that runs (team.h), and
// stops helping as soon as something does. Oversized sequences (cost_model.h) are led by half of the workers at most,
// so that short requests find one; the others help with an oversized sequence as long as nothing else waits.
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
  // Called once on each worker's thread before its first batch, for what an engine keeps per thread.
  std::function<void()> initialize_worker;
  bool threads = true;  // False: the owner calls Step, as a simulation does.
  // Whether any of these threads runs or waits for a core; tests say so otherwise.
  std::function<bool(std::span<const pid_t> threads)> wants_cpu = [](std::span<const pid_t> threads) {
    return std::ranges::any_of(threads, WantsCpu);
  };
};

struct LaneOptions {
  BatchLimits batch;
  CostModel costs;
};

// Observes the scheduler's work, for metrics. Called on worker threads, without locks held; must not block.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnBatch(int64_t tokens, size_t sequences, absl::Duration inference) = 0;
  virtual void OnDequeued(absl::Duration queued) = 0;  // Once for each sequence that a batch takes.
  virtual void OnFailure() = 0;                        // The encoder failed a batch for another reason than memory.
};

struct QueueState {
  size_t jobs = 0;
  int64_t tokens = 0;
  absl::Duration oldest;  // Since the arrival of the job that waits longest; 0 when none does.
  int running_batches = 0;
  // For how long a batch has been running that should have ended; 0 while none has.
  absl::Duration hanging;
};

class Scheduler;

// One model's place in a scheduler. Multiple threads can call its methods without external synchronization.
class Lane {
 public:
  // Answers what still waits with UNAVAILABLE and waits for its batches that run.
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Errors: UNAVAILABLE (it is being destroyed), DEADLINE_EXCEEDED (it has passed already). What bounds the queue is
  // admission (admission/admission.h).
  absl::Status Submit(std::shared_ptr<Job> job);

  // Answers the job with CANCELLED unless it has been answered. Its waiting sequences never reach the encoder, and a
  // batch that runs for cancelled jobs only is given up.
  void Cancel(Job& job);

  // Answers every job with this status, those whose batches run, too.
  void AnswerAll(const absl::Status& status);

  // Waits until every accepted job has been answered, at most for `timeout`. Returns whether that is so.
  bool WaitIdle(absl::Duration timeout);

  QueueState queue_state() const;

  // Seeds the estimate of throughput before there are batches: one worker alone took so long for so much cost.
  void SeedThroughput(int64_t cost, absl::Duration took);

  // Time that the whole device would take for so much cost (CostModel), by its recent throughput; 0 before anything is
  // known.
  absl::Duration WorkOf(int64_t cost) const { return absl::Seconds(static_cast<double>(cost) * seconds_per_cost_); }

  const LaneOptions& options() const { return options_; }

 private:
  friend class Scheduler;
  static constexpr double kMeasureMemory = 5;  // Seconds of a worker's time.

  Lane(Scheduler& scheduler, Encoder& encoder, const LaneOptions& options, SchedulerObserver* observer);

  struct RunningBatch {
    absl::Time began;
    absl::Duration cpu_began;  // ProcessCpuTime.
    absl::Duration most;       // That it may take.
    std::vector<std::shared_ptr<Job>> jobs;
  };
  // Time limit of a batch: several times what one worker alone would take, by recent throughput, plus some seconds.
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
  DecayedRatio cost_per_second_{kMeasureMemory};  // Of a worker that leads a batch, helped as its batches were.
  std::atomic<double> seconds_per_cost_ = 0;      // Of the whole device. Written under the mutex.
};

// Multiple threads can call the methods of one Scheduler without external synchronization.
class Scheduler {
 public:
  // `clock` must outlive it.
  Scheduler(SchedulerOptions options, const Clock& clock);

  // Joins the workers. Its lanes are gone by now.
  ~Scheduler();

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // `encoder` and `observer` (may be null) must outlive the lane, and the lane must not outlive the scheduler.
  std::unique_ptr<Lane> AddLane(Encoder& encoder, const LaneOptions& options, SchedulerObserver* observer);

  // Without threads: does what a worker would do next; false when there is nothing.
  bool Step();

  int workers() const { return options_.workers; }
  const Clock& clock() const { return clock_; }

 private:
  friend class Lane;

  // A worker's next action.
  struct Assignment {
    Lane* lane = nullptr;  // None: help other workers.
    Batch batch;           // Empty when only expired jobs were found.
    bool oversized = false;
    std::vector<std::shared_ptr<Job>> expired;
    std::vector<std::shared_ptr<Job>> infeasible;
    std::list<Lane::RunningBatch>::iterator running;  // When there is a lane.
  };

  void RunWorker();
  void Run(Assignment& assignment);
  absl::Status TooLateFor(const Lane& lane, const Job& job) const;
  // False when the scheduler is being destroyed.
  bool AwaitAssignment(Assignment& assignment);
  void TakeBatch(Lane& lane, Assignment& assignment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Lane* MostUrgentLane() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool OversizedMayStart() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // REQUIRES: called after anything that changes what waits or what may start.
  void UpdateWorkWaits() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void HelpOthers();
  void NotifyDequeued(Lane& lane, const Batch& batch) const;
  // Encodes and answers. When the encoder fails a batch of several jobs, each runs again by itself, so that only those
  // that are at fault fail.
  void EncodeBatch(Lane& lane, const Batch& batch);
  // Wakes free workers for a batch that they can help with (+1), or takes it back (-1).
  void InviteHelpers(int more);
  void FinishBatch(Assignment& assignment);
  bool IsCancelled(const Batch& batch) const;
  // Time since a batch should have ended; 0 before, or while the workers get too little of the CPU to say.
  absl::Duration Hanging(const Lane::RunningBatch& batch, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Results of a batch's sequences, in their order: rows, one a span, and sparse vectors.
  struct Rows {
    std::vector<std::vector<float>> dense;
    std::vector<SparseVector> sparse;
  };
  // Takes a block apart. Errors: RESOURCE_EXHAUSTED, there is not the memory.
  static absl::StatusOr<Rows> TakeRows(VectorBlock block);
  // Moves the rows into the results of their jobs, and frees the sequences of the batch. Returns the jobs that are now
  // complete.
  std::vector<std::shared_ptr<Job>> Deliver(Lane& lane, const Batch& batch, Rows& rows, absl::Time started,
                                            absl::Time finished);
  void Answer(Lane& lane, Job& job, absl::Status status);
  // Claims the right to call done_; false if it was claimed before.
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
  int free_workers_ ABSL_GUARDED_BY(mutex_) = 0;  // Without a batch of their own.
  int running_oversized_ ABSL_GUARDED_BY(mutex_) = 0;
  // Workers' seconds spent helping with batches, for each second of leading one.
  DecayedRatio helping_ ABSL_GUARDED_BY(mutex_){Lane::kMeasureMemory};
  std::atomic<int> helpable_ = 0;         // Running batches whose encoders use helpers; written under mutex_.
  std::atomic<bool> work_waits_ = false;  // Polled by helpers: a worker should take a batch, or end.

  std::vector<pid_t> worker_threads_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::jthread> workers_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_SCHEDULER_H_
