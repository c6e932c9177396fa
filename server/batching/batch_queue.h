// Jobs that wait, in order of urgency. A passive structure: no threads, no clock, no lock of its own.
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
  // A batch is filled up to so many tokens, attention counted in (CostModel); a sequence beyond it goes alone. Larger
  // batches make every call in them wait longer.
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

// The order: interactive before bulk; then the job that is due first; then the oldest. When a job is due that was
// admitted under a deadline, admission says; it runs as a whole, because calls that interleave are late together. Any
// other is due as long after its start (JobOptions::start, its arrival for most) as its deadline is after its arrival,
// at most kMaxDeadlineSlack, so that a stream of jobs with deadlines cannot starve one without. A job larger than a
// batch interleaves with what comes after it: whatever it gets to run moves its due time back by kInterleave times that
// work, times the number of jobs of its priority that are moved back, so that long texts get a fourth of the device
// together while anything else waits. Time that it got on an idle device does not count: its due time is at most
// kMaxDeadlineSlack ahead when it is moved back. A smaller job that did not fit whole keeps its place. Not thread-safe.
class BatchQueue {
 public:
  static constexpr absl::Duration kMaxDeadlineSlack = absl::Seconds(2);
  static constexpr int kInterleave = 4;

  explicit BatchQueue(const CostModel& costs = {}) : costs_(costs) {}

  void Push(std::shared_ptr<Job> job, absl::Time now);

  // Takes what is left of the job out of the queue; false when nothing of it was there.
  bool Remove(const Job& job);

  // Takes out every job whose deadline has passed.
  std::vector<std::shared_ptr<Job>> TakeExpired(absl::Time now);

  // Takes out jobs that are next and cannot be done by their deadlines, at `per_cost` of the device's time: starting
  // them would make those behind them late, too. Never the only job, which measures the device's speed.
  std::vector<std::shared_ptr<Job>> TakeInfeasible(absl::Time now, absl::Duration per_cost);

  // Takes the most urgent sequence, then in order of urgency whatever still fits the budget. Empty when the queue is.
  Batch TakeBatch(const BatchLimits& limits, absl::Time now);

  // Whether TakeBatch would find anything.
  bool HasWork(bool oversized) const { return jobs_.size() > (oversized ? 0 : jobs_behind_oversized_); }
  // Of the job that TakeBatch would begin with, when HasWork: the lower the sooner.
  std::pair<Priority, absl::Time> NextUrgency(bool oversized) const;

  bool empty() const { return jobs_.empty(); }
  size_t jobs() const { return jobs_.size(); }
  int64_t tokens() const { return tokens_; }  // Of sequences that wait.
  // The same with attention; without oversized sequences if `oversized` is false.
  int64_t cost(bool oversized = true) const { return oversized ? cost_ : cost_ - oversized_cost_; }
  absl::Time oldest() const;  // Arrival of the job that waits longest; InfiniteFuture when empty.

 private:
  using Urgency = std::tuple<Priority, absl::Time, uint64_t>;
  using Jobs = std::map<Urgency, std::shared_ptr<Job>>;

  // Admitted under a deadline: it runs as a whole, in its turn.
  static bool Promised(const Job& job) { return job.options_.due != absl::InfiniteFuture(); }
  static Urgency UrgencyOf(const Job& job) { return {job.options_.priority, job.due_, job.ticket_}; }
  // Gives the room of some sequences back to the admission.
  static void Release(const Job& job, size_t first, size_t end, bool runs);
  int64_t& MovedBack(const Job& job) { return moved_back_[static_cast<size_t>(job.options_.priority)]; }
  void MoveBack(Jobs::iterator position, absl::Duration ran, absl::Time now);
  // Takes sequences of one job into the batch while they fit; returns what they cost.
  int64_t TakeFrom(const std::shared_ptr<Job>& job, int64_t room, const BatchLimits& limits, Batch& batch);
  void Erase(Jobs::iterator position);
  // A job's sequences run in order: one whose next is an oversized sequence waits with it.
  bool NextIsOversized(const Job& job) const;
  // Counts a sequence that enters (+1) or leaves (-1) the queue.
  void Count(int64_t tokens, int sign);

  const CostModel costs_;

  Jobs jobs_;
  std::map<uint64_t, absl::Time> arrivals_;                         // Ticket -> arrival, for oldest().
  std::map<std::pair<absl::Time, uint64_t>, Urgency> by_deadline_;  // (deadline, ticket) -> place in jobs_.
  int64_t tokens_ = 0;
  int64_t cost_ = 0;
  int64_t oversized_cost_ = 0;
  size_t jobs_behind_oversized_ = 0;
  std::array<int64_t, 2> moved_back_{};  // By priority: how many of the jobs that wait.
  uint64_t next_ticket_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_BATCH_QUEUE_H_
