// A job: the sequences of one call. They are encoded in as many batches as needed and answered together.
#ifndef LONGEMBED_SERVER_BATCHING_JOB_H_
#define LONGEMBED_SERVER_BATCHING_JOB_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/encoder/encoder.h"
#include "model/plan/sequence.h"

namespace longembed {

enum class Priority {
  kInteractive,
  kBulk,  // Runs when no interactive work waits.
};

struct JobResult {
  // Un-normalized vectors, one for each span, in the order of sequences and their spans. A job with sparse vectors has
  // one for each sequence, in `sparse`, instead.
  std::vector<std::vector<float>> vectors;
  std::vector<SparseVector> sparse;
  absl::Duration queue;      // The longest wait of its sequences.
  absl::Duration inference;  // Sum over the batches that had sequences of the job.
};

// Called exactly once, on a thread of the scheduler, or on the thread that calls Lane::Cancel or Lane::AnswerAll or
// destroys the lane. Must not block.
using JobDone = absl::AnyInvocable<void(absl::StatusOr<JobResult>) &&>;

// A job's permit to be in the queue (admission/admission.h). Thread-safe. Called under the scheduler's lock.
class QueuePermit {
 public:
  virtual ~QueuePermit() = default;
  // Called when sequences with these tokens and this work leave the queue. `batch` is the time at which their batch was
  // taken, the same for all of its jobs; nullopt if they are cancelled.
  virtual void Release(int64_t tokens, absl::Duration work, std::optional<absl::Time> batch) = 0;
};

struct JobOptions {
  Priority priority = Priority::kInteractive;
  absl::Time deadline = absl::InfiniteFuture();
  // Start of the job by its client's virtual clock. A time in the past means now.
  absl::Time start = absl::InfinitePast();
  // Time when the job would be done by that clock, if it was admitted under a deadline; the queue then orders it by
  // this time. InfiniteFuture: the queue orders the job by `start` and `deadline`, and it interleaves with others
  // (BatchQueue).
  absl::Time due = absl::InfiniteFuture();
  absl::Duration work;                  // Estimated work, in time of the whole device.
  std::shared_ptr<QueuePermit> permit;  // May be null.
  // Receives the time when the first batch takes a sequence of the job. Not written once `done` is called. May be null;
  // must live until then.
  absl::Time* began = nullptr;
};

// The caller creates a job and owns it jointly with the scheduler. Private members belong to the scheduler and are
// guarded by its lock, except where noted.
class Job {
 public:
  // REQUIRES: `sequences` is not empty, none of them is empty, and either all or none of them give sparse vectors.
  Job(std::vector<Sequence> sequences, const JobOptions& options, JobDone done);

  int64_t tokens() const { return tokens_; }
  const JobOptions& options() const { return options_; }
  // Sequences that no batch will read any more are empty.
  const std::vector<Sequence>& sequences() const { return sequences_; }

 private:
  friend class BatchQueue;
  friend class Lane;
  friend class Scheduler;

  // Returns the part of the job's work that corresponds to `tokens` of its tokens. Attention is not counted separately,
  // because the sequences of a job mostly have one length.
  absl::Duration WorkOf(int64_t tokens) const {
    return options_.work * (static_cast<double>(tokens) / static_cast<double>(tokens_));
  }
  bool settled() const { return settled_.load(std::memory_order_relaxed); }

  // Data that is not read once the job has been answered. It is taken out then, so that a running batch that shares the
  // job does not keep it.
  struct Payload {
    std::vector<Sequence> sequences;
    JobResult result;
  };
  Payload TakePayload();

  std::vector<Sequence> sequences_;  // A running batch reads its own sequences without the lock.
  const JobOptions options_;
  const int64_t tokens_;
  std::vector<size_t> first_vector_;  // [sequence]: index of its first vector in result_.vectors or result_.sparse.

  absl::Time enqueued_;
  int64_t cost_ = 0;  // Cost of all its sequences (CostModel).
  absl::Time due_;    // Due time that BatchQueue orders by.
  bool moved_back_ = false;
  uint64_t ticket_ = 0;    // Order of arrival.
  size_t next_ = 0;        // The first sequence that no batch has taken.
  size_t unfinished_ = 0;  // Sequences without a result.
  JobResult result_;
  JobDone done_;
  std::atomic<bool> settled_ =
      false;  // done_ has been called or is about to be. Read without the lock by running batches.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_JOB_H_
