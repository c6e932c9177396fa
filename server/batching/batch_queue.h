// Jobs that wait, in order of urgency. A passive structure: no threads, no clock, no lock of its own.
#ifndef LONGEMBED_SERVER_BATCHING_BATCH_QUEUE_H_
#define LONGEMBED_SERVER_BATCHING_BATCH_QUEUE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "server/batching/job.h"

namespace longembed {

struct BatchLimits {
  // A batch is filled up to so many tokens; a sequence that is longer goes alone. Larger batches use the machine better
  // up to a few thousand tokens and make everybody in them wait longer.
  int64_t max_tokens = 4096;
  // Beyond so many sequences the cost of each one's own attention call outweighs what a fuller batch gains.
  size_t max_sequences = 512;
};

// A sequence within a job.
struct BatchItem {
  std::shared_ptr<Job> job;
  size_t sequence = 0;
};
using Batch = std::vector<BatchItem>;

// The order: interactive before bulk; then the nearest deadline, where a job without one counts as due kPatience after
// its arrival, so that a stream of jobs with deadlines cannot starve it; then the oldest. Not thread-safe.
class BatchQueue {
 public:
  static constexpr absl::Duration kPatience = absl::Seconds(10);

  void Push(std::shared_ptr<Job> job, absl::Time now);

  // Takes what is left of the job out of the queue; false when nothing of it was there.
  bool Remove(const Job& job);

  // Takes out every job whose deadline has passed.
  std::vector<std::shared_ptr<Job>> TakeExpired(absl::Time now);

  // Takes the most urgent sequence, then in order of urgency whatever still fits the budget. Empty when the queue is.
  Batch TakeBatch(const BatchLimits& limits);

  bool empty() const { return jobs_.empty(); }
  size_t jobs() const { return jobs_.size(); }
  int64_t tokens() const { return tokens_; }  // Of sequences that wait.
  absl::Time oldest() const;                  // Arrival of the job that waits longest; InfiniteFuture when empty.

 private:
  using Urgency = std::tuple<Priority, absl::Time, uint64_t>;
  using Jobs = std::map<Urgency, std::shared_ptr<Job>>;

  static Urgency UrgencyOf(const Job& job);
  // Takes sequences of one job into the batch while they fit; returns how many tokens they have.
  int64_t TakeFrom(const std::shared_ptr<Job>& job, int64_t room, const BatchLimits& limits, Batch& batch);
  void Erase(Jobs::iterator position);

  Jobs jobs_;
  std::map<uint64_t, absl::Time> arrivals_;  // Ticket -> arrival, for oldest().
  int64_t tokens_ = 0;
  uint64_t next_ticket_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_BATCH_QUEUE_H_
