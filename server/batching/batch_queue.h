// The waiting jobs of a lane in order of urgency. A passive structure: it has no threads, no clock and no lock.
#ifndef LONGEMBED_SERVER_BATCHING_BATCH_QUEUE_H_
#define LONGEMBED_SERVER_BATCHING_BATCH_QUEUE_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/batching/cost_model.h"
#include "server/batching/job.h"

namespace longembed {

struct BatchLimits {
  // Maximum cost of a batch (CostModel: tokens, plus attention converted to tokens). A sequence that costs more runs
  // alone. Larger batches make every call in them wait longer.
  int64_t max_tokens = 512;
  size_t max_sequences = 512;
  bool oversized = true;  // Whether oversized sequences may be taken.
};

// A sequence within a job.
struct BatchItem {
  std::shared_ptr<Job> job;
  size_t sequence = 0;
};
using Batch = std::vector<BatchItem>;

// Orders jobs by urgency: interactive before bulk, then the earlier due time, then the earlier arrival.
//
// A job that was admitted under a deadline is due when admission says. It runs as a whole, because calls that
// interleave are late together.
//
// Any other job is due at its start (JobOptions::start, for most jobs the arrival) plus the time from its arrival to
// its deadline, of which at most kMaxDeadlineSlack counts. So a stream of jobs with deadlines cannot starve a job
// without one. If such a job is larger than a batch, it interleaves with the jobs behind it. Whenever a part of it
// runs, its due time moves back by kInterleave times the work of that part, times the number of waiting jobs of its
// priority that have been moved back. So long texts together get a fourth of the device while anything else waits. Work
// that ran on an idle device does not count: before each move the due time is limited to kMaxDeadlineSlack from now, or
// from the start if that is later. A smaller job that did not fit whole keeps its place.
//
// Not thread-safe.
class BatchQueue {
 public:
  static constexpr absl::Duration kMaxDeadlineSlack = absl::Seconds(2);
  static constexpr int kInterleave = 4;

  explicit BatchQueue(const CostModel& costs = {}) : costs_(costs) {}

  void Push(std::shared_ptr<Job> job, absl::Time now);

  // Removes the remaining sequences of the job. Returns false if the queue had none of them.
  bool Remove(const Job& job);

  // Removes and returns every job whose deadline has passed.
  std::vector<std::shared_ptr<Job>> TakeExpired(absl::Time now);

  // Removes and returns jobs at the head of the queue that cannot be done by their deadlines, if the device needs
  // `per_cost` for one unit of cost: starting them would make the jobs behind them late, too. Takes only jobs that were
  // admitted under a deadline and of which nothing has run. Never takes the only job: running it measures the device's
  // speed.
  std::vector<std::shared_ptr<Job>> TakeInfeasible(absl::Time now, absl::Duration per_cost);

  // Takes the most urgent sequence that may run, and then in order of urgency those that still fit the budget. Ends the
  // search after many jobs in a row that do not fit. Returns an empty batch if no sequence may run.
  Batch TakeBatch(const BatchLimits& limits, absl::Time now);

  // Returns whether TakeBatch would find anything. `oversized`: whether it may take oversized sequences.
  bool HasWork(bool oversized) const { return jobs_.size() > (oversized ? 0 : jobs_with_oversized_next_); }
  // Returns the urgency of the job that TakeBatch would begin with; lower is more urgent. REQUIRES: HasWork(oversized).
  std::pair<Priority, absl::Time> NextUrgency(bool oversized) const;

  bool empty() const { return jobs_.empty(); }
  size_t jobs() const { return jobs_.size(); }
  int64_t tokens() const { return tokens_; }  // Tokens of the waiting sequences.
  // Returns the cost (CostModel) of the waiting sequences, without oversized ones if `oversized` is false.
  int64_t cost(bool oversized = true) const { return oversized ? cost_ : cost_ - oversized_cost_; }
  absl::Time oldest() const;  // Arrival of the job that waits longest; InfiniteFuture if the queue is empty.

 private:
  using Urgency = std::tuple<Priority, absl::Time, uint64_t>;
  using Jobs = std::map<Urgency, std::shared_ptr<Job>>;

  // Returns whether the job was admitted under a deadline, so that it runs as a whole, in its turn.
  static bool HasAdmittedDeadline(const Job& job) { return job.options_.due != absl::InfiniteFuture(); }
  static Urgency UrgencyOf(const Job& job) { return {job.options_.priority, job.due_, job.ticket_}; }
  // Releases the permit's share for the sequences from `first` to `end`.
  static void Release(const Job& job, size_t first, size_t end, std::optional<absl::Time> batch);
  int64_t& MovedBack(const Job& job) { return moved_back_[static_cast<size_t>(job.options_.priority)]; }
  void MoveBack(Jobs::iterator position, absl::Duration ran, absl::Time now);
  // Takes sequences of one job into the batch while they fit. Returns their cost.
  int64_t TakeFrom(const std::shared_ptr<Job>& job, int64_t room, const BatchLimits& limits, Batch& batch);
  void Erase(Jobs::iterator position);
  // Returns whether the job's next sequence is oversized. The job's sequences run in order, so the others wait for it.
  bool NextIsOversized(const Job& job) const;
  // Counts a sequence that enters (+1) or leaves (-1) the queue.
  void Count(const Sequence& sequence, int sign);

  const CostModel costs_;

  Jobs jobs_;
  std::map<uint64_t, absl::Time> arrivals_;                         // Ticket -> arrival, for oldest().
  std::map<std::pair<absl::Time, uint64_t>, Urgency> by_deadline_;  // (deadline, ticket) -> place in jobs_.
  int64_t tokens_ = 0;
  int64_t cost_ = 0;
  int64_t oversized_cost_ = 0;
  size_t jobs_with_oversized_next_ = 0;
  std::array<int64_t, 2> moved_back_{};  // [priority]: number of waiting jobs that have been moved back.
  uint64_t next_ticket_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_BATCH_QUEUE_H_
