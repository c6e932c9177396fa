// A job: the sequences of one call, which are encoded in as many batches as it takes and answered together.
#ifndef LONGEMBED_SERVER_BATCHING_JOB_H_
#define LONGEMBED_SERVER_BATCHING_JOB_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/encoder/encoder.h"
#include "model/plan/sequence.h"

namespace longembed {

enum class Priority {
  kInteractive,
  kBulk,  // Runs when nothing interactive waits.
};

struct JobResult {
  // In the order of sequences and their spans: one a span, un-normalized; or one a sequence, of jobs with sparse
  // vectors.
  std::vector<std::vector<float>> vectors;
  std::vector<SparseVector> sparse;
  absl::Duration queue;      // The longest that one of its sequences waited.
  absl::Duration inference;  // Sum over the batches that it took part in.
};

// Called exactly once, on a thread of the scheduler's or on the one that cancels. Must not block.
using JobDone = absl::AnyInvocable<void(absl::StatusOr<JobResult>) &&>;

// A job's permit to be in the queue (admission/admission.h). Thread-safe; called under the scheduler's lock.
class QueuePermit {
 public:
  virtual ~QueuePermit() = default;
  // Sequences with so many tokens, and so much work, have left the queue: they run (`runs`), or are cancelled.
  virtual void Release(int64_t tokens, absl::Duration work, bool runs) = 0;
};

struct JobOptions {
  Priority priority = Priority::kInteractive;
  absl::Time deadline = absl::InfiniteFuture();
  // When the job begins by its client's virtual clock; what lies in the past means now.
  absl::Time start = absl::InfinitePast();
  // When the job would be done by that clock, if it was admitted under a deadline: its place in the order, which it
  // keeps. InfiniteFuture: its place is that of start and deadline, and it interleaves with others (BatchQueue).
  absl::Time due = absl::InfiniteFuture();
  absl::Duration work;                  // On the whole device, by estimate.
  std::shared_ptr<QueuePermit> permit;  // May be null.
  // Set when the first batch takes a sequence of the job, and not once `done` is called. May be null; lives until then.
  absl::Time* began = nullptr;
};

// Made by the caller, owned jointly with the scheduler. What is private belongs to the scheduler and is guarded by its
// lock, except where said otherwise.
class Job {
 public:
  // `sequences` is not empty, and none of them is. Either all of them give sparse vectors, or none.
  Job(std::vector<Sequence> sequences, const JobOptions& options, JobDone done);

  int64_t tokens() const { return tokens_; }
  const JobOptions& options() const { return options_; }
  // Those that no batch will read any more are empty.
  const std::vector<Sequence>& sequences() const { return sequences_; }

 private:
  friend class BatchQueue;
  friend class Lane;
  friend class Scheduler;

  // The part of its work that so many of its tokens are. (Attention is not counted apart: the sequences of a job are
  // mostly of one length.)
  absl::Duration WorkOf(int64_t tokens) const {
    return options_.work * (static_cast<double>(tokens) / static_cast<double>(tokens_));
  }
  bool settled() const { return settled_.load(std::memory_order_relaxed); }

  // Data not read once the job has been answered: a running batch that shares the job must not keep it.
  struct Remains {
    std::vector<Sequence> sequences;
    JobResult result;
  };
  Remains TakeRemains();

  std::vector<Sequence> sequences_;  // A running batch reads its own without the lock.
  const JobOptions options_;
  const int64_t tokens_;
  std::vector<size_t> first_vector_;  // Of each sequence, in result_.vectors or result_.sparse.

  absl::Time enqueued_;
  int64_t cost_ = 0;  // Of all its sequences (CostModel).
  absl::Time due_;    // Its place in the order (BatchQueue).
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
