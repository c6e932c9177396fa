#include "server/admission/admission.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "server/admission/fair_share.h"
#include "server/batching/batch_queue.h"

namespace longembed {

Permit::~Permit() {
  const MutexLock lock(admission_.mutex_);
  admission_.ReleasePart(*this, held_);
  const auto client = admission_.clients_.find(request_.client);
  if (--client->second.permits > 0) return;
  assert(client->second.all_tokens == 0 && client->second.work == absl::ZeroDuration());
  admission_.clients_.erase(client);
}

absl::Status Permit::Settle(int64_t tokens, absl::Duration work, bool oversized, bool must_fit) {
  const MutexLock lock(admission_.mutex_);
  const Reservation estimate = held_;
  admission_.ReleasePart(*this, held_);
  request_.tokens = tokens;
  request_.work = work;
  request_.oversized = oversized;
  settled_ = true;
  whole_ = admission_.Charge(request_);
  admission_.CorrectClock(request_.client, whole_.work - estimate.work);
  // The estimate was checked against share and wait. Tokens are memory, so they are checked again.
  const bool grown = whole_.tokens > estimate.tokens || whole_.all_tokens > estimate.all_tokens;
  if (grown && !must_fit && !Admission::TokensFit(model_, request_.priority, whole_)) {
    return admission_.Refuse(Overload::kQueueTokens, model_, request_);
  }
  request_.tokenization = absl::ZeroDuration();  // Tokenization is done.
  due_ = admission_.DueOf(request_, start_);
  if (!must_fit && admission_.IsLate(model_, request_, admission_.WaitOf(request_, start_))) {
    return admission_.Refuse(Overload::kDeadline, model_, request_);
  }
  admission_.Hold(*this, whole_);
  return absl::OkStatus();
}

void Permit::Release(int64_t tokens, absl::Duration work, std::optional<absl::Time> batch) {
  const MutexLock lock(admission_.mutex_);
  if (held_.all_tokens == 0) return;
  const int64_t part = std::min(tokens, held_.all_tokens);
  const Reservation released = part == held_.all_tokens ? held_ : ShareOf(part);
  if (batch.has_value() && !request_.oversized) admission_.MeasurePace(work, *batch);
  admission_.ReleasePart(*this, released);
}

Reservation Permit::ShareOf(int64_t part) const {
  const double share = static_cast<double>(part) / static_cast<double>(whole_.all_tokens);
  const auto charged = static_cast<int64_t>(share * static_cast<double>(whole_.tokens));
  // Rounding down must not release more uncharged tokens than are held.
  const int64_t tokens = std::max(charged, part - held_.uncharged_tokens());
  return {
      .all_tokens = part, .tokens = std::min(held_.tokens, tokens), .work = std::min(held_.work, share * whole_.work)};
}

absl::StatusOr<std::shared_ptr<Permit>> Admission::Admit(ModelBudget& model, const ResourceRequest& request) {
  const Reservation wanted = Charge(request);
  const MutexLock lock(mutex_);
  if (const Decision decision = Decide(model, request, wanted); decision.refused) {
    return Refuse(decision.reason, model, request);
  }
  Client& client = clients_[request.client];
  ++client.permits;
  std::shared_ptr<Permit> permit(new Permit(*this, model, request));
  permit->whole_ = wanted;
  permit->start_ = AdvanceClock(client, wanted.work);
  permit->due_ = DueOf(request, permit->start_);
  Hold(*permit, wanted);
  return permit;
}

Reservation Admission::Charge(const ResourceRequest& request) const {
  Reservation charge{.all_tokens = request.tokens, .tokens = request.tokens, .work = request.work};
  const absl::Duration most = Budget(request.priority) / 8;
  if (request.work <= most || request.tokens == 0 || request.deadline != absl::InfiniteFuture()) return charge;
  const double share = absl::FDivDuration(most, request.work);
  charge.tokens = std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(request.tokens)));
  if (!request.oversized) charge.work = most;
  return charge;
}

Admission::Decision Admission::Decide(const ModelBudget& model, const ResourceRequest& request,
                                      const Reservation& wanted) const {
  const int64_t max_tokens = MaxTokens(model, request.priority);
  const auto found = clients_.find(request.client);
  const Client client = found == clients_.end() ? Client{} : found->second;
  // A client that holds nothing may have one call of any size, just as an empty queue admits one.
  if (request.max_client_tokens > 0 && client.all_tokens > 0 &&
      client.all_tokens + request.tokens > request.max_client_tokens) {
    return {Overload::kClientLimit, true};
  }
  if (!TokensFit(model, request.priority, wanted)) return {Overload::kQueueTokens, true};
  const absl::Duration queue = WaitOf(request, StartOf(client, client.work));
  if (model.tokens_ > 0 && request.tokenization + queue > Budget(request.priority)) return {Overload::kQueueWait, true};
  if (IsLate(model, request, queue)) return {Overload::kDeadline, true};
  if (model.tokens_ == 0) return {};
  const absl::Duration before = WaitBefore(request.priority, request.oversized);
  const auto own = model.client_tokens_.find(request.client);
  const int64_t own_tokens = own == model.client_tokens_.end() ? 0 : own->second;
  const bool more_tokens = ExceedsFairShare(own_tokens, max_tokens - model.tokens_ - wanted.tokens);
  const bool more_work = ExceedsFairShare(std::min(client.work / pace(), before), Budget(request.priority) - before);
  if (more_tokens || more_work) return {Overload::kClientShare, true};
  return {};
}

int64_t Admission::MaxTokens(const ModelBudget& model, Priority priority) {
  return priority == Priority::kBulk ? model.max_tokens_ / 2 : model.max_tokens_;
}

bool Admission::TokensFit(const ModelBudget& model, Priority priority, const Reservation& wanted) {
  if (model.tokens_ == 0) return true;
  const int64_t most = MaxTokens(model, priority);
  if (model.tokens_ + wanted.tokens > most) return false;
  const int64_t uncharged = wanted.uncharged_tokens();
  return uncharged == 0 || model.uncharged_tokens_ == 0 || model.uncharged_tokens_ + uncharged <= kUncharged * most;
}

absl::Duration Admission::WorkBefore(Priority priority, bool oversized) const {
  absl::Duration sum;
  for (int p = 0; p <= static_cast<int>(priority); ++p) {
    sum += work_[p][false];
    if (oversized) sum += work_[p][true];
  }
  return sum;
}

absl::Duration Admission::WaitBefore(Priority priority, bool oversized) const {
  return WorkBefore(priority, oversized) / pace();
}

absl::Duration Admission::WaitOf(const ResourceRequest& request, absl::Time start) const {
  const absl::Duration all = WaitBefore(request.priority, request.oversized);
  // Only a call that is due last waits for all of that work, but if the wait is short this upper bound is close enough.
  if (request.oversized || all <= Budget(request.priority) / 8) return all;
  absl::Duration before;
  for (int p = 0; p < static_cast<int>(request.priority); ++p) before += work_[p][false];
  const auto& works = due_work_[static_cast<int>(request.priority)];
  const auto end = works.upper_bound(DueOf(request, start));
  for (auto position = works.begin(); position != end; ++position) before += position->second;
  return before / pace();
}

bool Admission::IsLate(const ModelBudget& model, const ResourceRequest& request, absl::Duration queue) const {
  // The fraction of the remaining time that a call may use; the rest is headroom for more urgent calls and estimation
  // error.
  constexpr double kPromised = 0.75;
  const bool alone = model.tokens_ == 0;
  if (request.deadline == absl::InfiniteFuture() || (alone && queue == absl::ZeroDuration())) return false;
  const absl::Duration own = alone ? absl::ZeroDuration() : request.work / pace();
  return request.tokenization + queue + own > kPromised * (request.deadline - clock_.Now());
}

absl::Time Admission::DueOf(const ResourceRequest& request, absl::Time start) {
  return start + (request.deadline == absl::InfiniteFuture() ? BatchQueue::kMaxDeadlineSlack : request.work);
}

void Admission::MeasurePace(absl::Duration left, absl::Time batch) {
  if (last_left_ == absl::InfinitePast()) first_left_ = last_left_ = batch;
  // The first batch began when its work came, which is not known. All of its jobs leave at this time.
  if (batch == first_left_) return;
  pace_.Add(absl::ToDoubleSeconds(left), absl::ToDoubleSeconds(std::max(absl::ZeroDuration(), batch - last_left_)));
  last_left_ = batch;
}

absl::Status Admission::Refuse(Overload reason, const ModelBudget& model, const ResourceRequest& request) {
  // Varies the retry delay by a quarter, so that clients refused together do not return together and get refused again.
  jitter_ = jitter_ * 1664525 + 1013904223;  // Numerical Recipes' generator, sufficient for jitter.
  const double factor = 0.75 + 0.5 * static_cast<double>(jitter_ >> 8) / (1 << 24);
  const absl::Duration wait = request.tokenization + WaitBefore(request.priority, request.oversized);
  const bool late = reason == Overload::kDeadline;
  const absl::Duration done = wait + request.work / pace();
  const absl::Duration hint = RetryDelayFor(wait) * factor;
  return Overloaded(reason,
                    {.queued_tokens = model.tokens_,
                     .max_queued_tokens = MaxTokens(model, request.priority),
                     .expected_wait = late ? done : wait,
                     .max_wait = late ? request.deadline - clock_.Now() : Budget(request.priority),
                     .max_client_tokens = request.max_client_tokens},
                    hint);
}

void Admission::Hold(Permit& permit, const Reservation& more) {
  permit.held_ = more;
  Count(permit, more, +1);
}

void Admission::ReleasePart(Permit& permit, Reservation part) {
  Count(permit, part, -1);
  permit.held_.all_tokens -= part.all_tokens;
  permit.held_.tokens -= part.tokens;
  permit.held_.work -= part.work;
  assert(permit.held_.all_tokens >= 0 && permit.held_.tokens >= 0 && permit.held_.work >= absl::ZeroDuration());
  // Work that enters an empty queue leaves it at once, which does not measure the pace.
  if (ready_work_ <= absl::ZeroDuration()) last_left_ = absl::InfinitePast();
}

void Admission::Count(const Permit& permit, const Reservation& reservation, int sign) {
  const ResourceRequest& request = permit.request_;
  ModelBudget& model = permit.model_;
  model.tokens_ += sign * reservation.tokens;
  model.uncharged_tokens_ += sign * reservation.uncharged_tokens();
  int64_t& own_tokens = model.client_tokens_[request.client];
  own_tokens += sign * reservation.tokens;
  assert(own_tokens >= 0 && model.tokens_ >= own_tokens && model.uncharged_tokens_ >= 0);
  if (own_tokens == 0) model.client_tokens_.erase(request.client);
  work_[static_cast<int>(request.priority)][request.oversized] += sign * reservation.work;
  if (!request.oversized) CountDue(permit, sign * reservation.work);
  if (permit.settled_ && !request.oversized) ready_work_ += sign * reservation.work;
  Client& client = clients_[request.client];
  client.all_tokens += sign * reservation.all_tokens;
  client.work += sign * reservation.work;
}

void Admission::CountDue(const Permit& permit, absl::Duration more) {
  auto& works = due_work_[static_cast<int>(permit.request_.priority)];
  const absl::Time step = absl::UnixEpoch() + absl::Floor(permit.due_ - absl::UnixEpoch(), kDueStep);
  absl::Duration& work = works[step];
  work += more;
  if (work == absl::ZeroDuration()) works.erase(step);
}

absl::Time Admission::StartOf(const Client& client, absl::Duration held) const {
  const absl::Time now = clock_.Now();
  // The clock is ahead by the client's waiting work at most, so that cancelled and refused calls do not count against
  // it.
  const absl::Duration ahead = std::max(absl::ZeroDuration(), held) * static_cast<int64_t>(clients_.size());
  return std::clamp(client.clock, now, now + ahead);
}

absl::Time Admission::AdvanceClock(Client& client, absl::Duration work) {
  const absl::Time start = StartOf(client, client.work);
  client.clock = start + work * static_cast<int64_t>(clients_.size());
  return start;
}

void Admission::CorrectClock(const std::string& name, absl::Duration more) {
  clients_[name].clock += more * static_cast<int64_t>(clients_.size());
}

absl::Duration Admission::expected_wait() const {
  const MutexLock lock(mutex_);
  return WaitBefore(Priority::kInteractive, /*oversized=*/true);
}

}  // namespace longembed
