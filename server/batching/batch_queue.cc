#include "server/batching/batch_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace longembed {

void BatchQueue::Push(std::shared_ptr<Job> job, absl::Time now) {
  job->enqueued_ = now;
  job->due_ = HasAdmittedDeadline(*job)
                  ? job->options_.due
                  : std::max(now, job->options_.start) + std::min(job->options_.deadline - now, kMaxDeadlineSlack);
  job->ticket_ = next_ticket_++;
  job->cost_ = 0;
  for (const Sequence& sequence : job->sequences_) {
    Count(sequence, +1);
    job->cost_ += costs_.CostOf(sequence);
  }
  jobs_with_oversized_next_ += NextIsOversized(*job) ? 1 : 0;
  arrivals_.emplace(job->ticket_, now);
  const Urgency urgency = UrgencyOf(*job);
  by_deadline_.emplace(std::pair(job->options_.deadline, job->ticket_), urgency);
  jobs_.emplace(urgency, std::move(job));
}

bool BatchQueue::Remove(const Job& job) {
  const auto found = jobs_.find(UrgencyOf(job));
  if (found == jobs_.end() || found->second.get() != &job) return false;
  Erase(found);
  return true;
}

void BatchQueue::Erase(Jobs::iterator position) {
  const Job& job = *position->second;
  MovedBack(job) -= job.moved_back_ ? 1 : 0;
  jobs_with_oversized_next_ -= NextIsOversized(job) ? 1 : 0;
  for (size_t i = job.next_; i < job.sequences_.size(); ++i) Count(job.sequences_[i], -1);
  Release(job, job.next_, job.sequences_.size(), /*batch=*/std::nullopt);
  by_deadline_.erase({job.options_.deadline, job.ticket_});
  arrivals_.erase(job.ticket_);
  jobs_.erase(position);
  assert(arrivals_.size() == jobs_.size() && by_deadline_.size() == jobs_.size());
  assert(!jobs_.empty() || (tokens_ == 0 && jobs_with_oversized_next_ == 0 && moved_back_ == std::array<int64_t, 2>{}));
}

void BatchQueue::Release(const Job& job, size_t first, size_t end, std::optional<absl::Time> batch) {
  if (job.options_.permit == nullptr || first == end) return;
  int64_t tokens = 0;
  for (size_t i = first; i < end; ++i) tokens += job.sequences_[i].size();
  job.options_.permit->Release(tokens, job.WorkOf(tokens), batch);
}

void BatchQueue::MoveBack(Jobs::iterator position, absl::Duration ran, absl::Time now) {
  if (HasAdmittedDeadline(*position->second)) return;
  auto node = jobs_.extract(position);
  Job& job = *node.mapped();
  if (!std::exchange(job.moved_back_, true)) ++MovedBack(job);
  const absl::Time latest = std::max(now, job.options_.start) + kMaxDeadlineSlack;
  job.due_ = std::min(job.due_, latest) + kInterleave * MovedBack(job) * ran;
  node.key() = UrgencyOf(job);
  by_deadline_.at({job.options_.deadline, job.ticket_}) = node.key();
  [[maybe_unused]] const bool inserted = jobs_.insert(std::move(node)).inserted;
  assert(inserted);
}

void BatchQueue::Count(const Sequence& sequence, int sign) {
  const int64_t cost = costs_.CostOf(sequence);
  tokens_ += sign * sequence.size();
  cost_ += sign * cost;
  if (costs_.IsOversizedCost(cost)) oversized_cost_ += sign * cost;
  assert(tokens_ >= 0 && oversized_cost_ >= 0 && cost_ >= oversized_cost_);
}

bool BatchQueue::NextIsOversized(const Job& job) const {
  return job.next_ < job.sequences_.size() && costs_.IsOversized(job.sequences_[job.next_]);
}

std::pair<Priority, absl::Time> BatchQueue::NextUrgency(bool oversized) const {
  for (const auto& [urgency, job] : jobs_) {
    if (oversized || !NextIsOversized(*job)) return {std::get<0>(urgency), std::get<1>(urgency)};
  }
  return {Priority::kBulk, absl::InfiniteFuture()};
}

std::vector<std::shared_ptr<Job>> BatchQueue::TakeExpired(absl::Time now) {
  std::vector<std::shared_ptr<Job>> expired;
  while (!by_deadline_.empty() && by_deadline_.begin()->first.first <= now) {
    const auto position = jobs_.find(by_deadline_.begin()->second);
    expired.push_back(position->second);
    Erase(position);
  }
  return expired;
}

std::vector<std::shared_ptr<Job>> BatchQueue::TakeInfeasible(absl::Time now, absl::Duration per_cost) {
  constexpr double kOptimism = 0.9;  // Margin for estimation error, because a job that is taken out is lost.
  std::vector<std::shared_ptr<Job>> infeasible;
  while (jobs_.size() > 1) {
    const auto next = jobs_.begin();
    const Job& job = *next->second;
    if (!HasAdmittedDeadline(job) || job.next_ > 0 || now + kOptimism * (per_cost * job.cost_) <= job.options_.deadline)
      break;
    infeasible.push_back(next->second);
    Erase(next);
  }
  return infeasible;
}

int64_t BatchQueue::TakeFrom(const std::shared_ptr<Job>& job, int64_t room, const BatchLimits& limits, Batch& batch) {
  int64_t taken = 0;
  jobs_with_oversized_next_ -= NextIsOversized(*job) ? 1 : 0;
  while (job->next_ < job->sequences_.size() && batch.size() < limits.max_sequences) {
    const Sequence& sequence = job->sequences_[job->next_];
    const int64_t cost = costs_.CostOf(sequence);
    if (!batch.empty() && taken + cost > room) break;
    const bool oversized = costs_.IsOversizedCost(cost);
    if (oversized && (!limits.oversized || !batch.empty())) break;  // An oversized sequence runs alone.
    batch.push_back({job, job->next_++});
    taken += cost;
    Count(sequence, -1);
    if (oversized) break;
  }
  jobs_with_oversized_next_ += NextIsOversized(*job) ? 1 : 0;
  return taken;
}

Batch BatchQueue::TakeBatch(const BatchLimits& limits, absl::Time now) {
  // Stops the search for a smaller job after this many in a row that do not fit. This bounds the time under the
  // caller's lock.
  constexpr int kMaxMisses = 64;
  Batch batch;
  int64_t room = limits.max_tokens;
  int misses = 0;
  for (auto position = jobs_.begin(); position != jobs_.end() && (batch.empty() || room > 0) &&
                                      batch.size() < limits.max_sequences && misses < kMaxMisses;) {
    const auto candidate = position++;
    const std::shared_ptr<Job> job = candidate->second;
    const size_t first = job->next_;
    const int64_t taken = TakeFrom(job, room, limits, batch);
    room -= taken;
    Release(*job, first, job->next_, now);
    // Jobs whose next sequence is oversized and may not start are skipped without limit.
    if (!batch.empty()) misses = taken > 0 ? 0 : misses + 1;
    if (!batch.empty() && costs_.IsOversized(batch.back().job->sequences_[batch.back().sequence])) room = 0;
    if (job->next_ == job->sequences_.size()) {
      Erase(candidate);
    } else if (job->next_ > first && job->cost_ > limits.max_tokens) {
      int64_t tokens = 0;
      for (size_t i = first; i < job->next_; ++i) tokens += job->sequences_[i].size();
      MoveBack(candidate, job->WorkOf(tokens), now);
      // The batch is full, or the job's next sequence does not fit. If the loop reaches the job again, it takes
      // nothing.
    }
  }
  return batch;
}

absl::Time BatchQueue::oldest() const { return arrivals_.empty() ? absl::InfiniteFuture() : arrivals_.begin()->second; }

}  // namespace longembed
