#include "server/admission/admission.h"

#include <algorithm>
#include <utility>

#include "server/admission/fair_share.h"
#include "server/batching/batch_queue.h"

namespace longembed {

Place::~Place() {
  const std::lock_guard lock(admission_.mutex_);
  admission_.GiveBack(*this, held_);
  const auto client = admission_.clients_.find(demand_.client);
  if (--client->second.places == 0) admission_.clients_.erase(client);
}

absl::Status Place::Settle(int64_t tokens, absl::Duration work, bool giant, bool must_fit) {
  const std::lock_guard lock(admission_.mutex_);
  const Holding estimate = held_;
  admission_.GiveBack(*this, held_);
  demand_.tokens = tokens;
  demand_.work = work;
  demand_.giant = giant;
  settled_ = true;
  whole_ = admission_.Charge(demand_);
  admission_.CorrectClock(demand_.client, whole_.work - estimate.work);
  // Its share and its wait were judged by the estimate; the tokens are memory.
  const bool grown = whole_.tokens > estimate.tokens || whole_.all_tokens > estimate.all_tokens;
  if (grown && !must_fit && !Admission::TokensFit(model_, demand_.priority, whole_)) {
    return admission_.Refuse(Overload::kQueueTokens, model_, demand_);
  }
  demand_.tokenization = absl::ZeroDuration();  // Done.
  due_ = admission_.DueOf(demand_, start_);
  if (!must_fit && Admission::Waits(model_) && admission_.IsLate(demand_, admission_.WaitOf(demand_, start_))) {
    return admission_.Refuse(Overload::kDeadline, model_, demand_);
  }
  admission_.Hold(*this, whole_);
  return absl::OkStatus();
}

void Place::Release(int64_t tokens, absl::Duration work, bool runs) {
  const std::lock_guard lock(admission_.mutex_);
  if (held_.all_tokens == 0) return;
  const int64_t part = std::min(tokens, held_.all_tokens);
  const double share = static_cast<double>(part) / static_cast<double>(whole_.all_tokens);
  // Rounded down, but for the last part, which takes what is left.
  const Holding released =
      part == held_.all_tokens
          ? held_
          : Holding{.all_tokens = part,
                    .tokens = std::min(held_.tokens, static_cast<int64_t>(share * static_cast<double>(whole_.tokens))),
                    .work = std::min(held_.work, share * whole_.work)};
  if (runs && !demand_.giant) admission_.MeasurePace(work);
  admission_.GiveBack(*this, released);
}

absl::StatusOr<std::shared_ptr<Place>> Admission::Admit(ModelBudget& model, const Demand& demand) {
  const Holding wanted = Charge(demand);
  const std::lock_guard lock(mutex_);
  if (const Verdict verdict = Judge(model, demand, wanted); verdict.refused) {
    return Refuse(verdict.reason, model, demand);
  }
  Client& client = clients_[demand.client];
  ++client.places;
  std::shared_ptr<Place> place(new Place(*this, model, demand));
  place->whole_ = wanted;
  place->start_ = AdvanceClock(client, wanted.work);
  place->due_ = DueOf(demand, place->start_);
  Hold(*place, wanted);
  return place;
}

Holding Admission::Charge(const Demand& demand) const {
  Holding charge{.all_tokens = demand.tokens, .tokens = demand.tokens, .work = demand.work};
  const absl::Duration most = Budget(demand.priority) / 8;
  if (demand.work <= most || demand.tokens == 0 || demand.deadline != absl::InfiniteFuture()) return charge;
  const double share = absl::FDivDuration(most, demand.work);
  charge.tokens = std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(demand.tokens)));
  if (!demand.giant) charge.work = most;
  return charge;
}

Admission::Verdict Admission::Judge(const ModelBudget& model, const Demand& demand, const Holding& wanted) const {
  const int64_t max_tokens = MaxTokens(model, demand.priority);
  const auto found = clients_.find(demand.client);
  const Client client = found == clients_.end() ? Client{} : found->second;
  // A client that holds nothing may have one call of any size, as a queue that is empty may.
  if (demand.max_client_tokens > 0 && client.all_tokens > 0 &&
      client.all_tokens + demand.tokens > demand.max_client_tokens) {
    return {Overload::kClientLimit, true};
  }
  if (!TokensFit(model, demand.priority, wanted)) return {Overload::kQueueTokens, true};
  if (model.tokens_ == 0) return {};
  const absl::Duration before = WaitBefore(demand.priority, demand.giant);
  const absl::Duration wait = demand.tokenization + WaitOf(demand, StartOf(client, client.work));
  if (wait > Budget(demand.priority)) return {Overload::kQueueWait, true};
  if (IsLate(demand, wait)) return {Overload::kDeadline, true};
  const auto own = model.client_tokens_.find(demand.client);
  const int64_t own_tokens = own == model.client_tokens_.end() ? 0 : own->second;
  const bool more_tokens = ExceedsFairShare(own_tokens, max_tokens - model.tokens_ - wanted.tokens);
  const bool more_work = ExceedsFairShare(std::min(client.work / pace(), before), Budget(demand.priority) - before);
  if (more_tokens || more_work) return {Overload::kClientShare, true};
  return {};
}

int64_t Admission::MaxTokens(const ModelBudget& model, Priority priority) {
  return priority == Priority::kBulk ? model.max_tokens_ / 2 : model.max_tokens_;
}

bool Admission::TokensFit(const ModelBudget& model, Priority priority, const Holding& wanted) {
  if (model.tokens_ == 0) return true;
  const int64_t most = MaxTokens(model, priority);
  if (model.tokens_ + wanted.tokens > most) return false;
  const int64_t uncharged = wanted.uncharged_tokens();
  return uncharged == 0 || model.uncharged_tokens_ == 0 || model.uncharged_tokens_ + uncharged <= kUncharged * most;
}

absl::Duration Admission::WorkBefore(Priority priority, bool giant) const {
  absl::Duration sum;
  for (int p = 0; p <= static_cast<int>(priority); ++p) {
    sum += work_[p][false];
    if (giant) sum += work_[p][true];
  }
  return sum;
}

absl::Duration Admission::WaitBefore(Priority priority, bool giant) const {
  return WorkBefore(priority, giant) / pace();
}

absl::Duration Admission::WaitOf(const Demand& demand, absl::Time start) const {
  const absl::Duration all = WaitBefore(demand.priority, demand.giant);
  // Whoever is due last waits for all, and whoever need not wait for long is not worth a closer look.
  if (demand.giant || all <= Budget(demand.priority) / 8) return all;
  absl::Duration before;
  for (int p = 0; p < static_cast<int>(demand.priority); ++p) before += work_[p][false];
  const auto& works = due_work_[static_cast<int>(demand.priority)];
  const auto end = works.upper_bound(DueOf(demand, start));
  for (auto position = works.begin(); position != end; ++position) before += position->second;
  return before / pace();
}

bool Admission::IsLate(const Demand& demand, absl::Duration wait) const {
  // Of the time that is left; the rest is for what comes meanwhile and is due sooner, and for estimates that err.
  constexpr double kPromised = 0.75;
  if (demand.deadline == absl::InfiniteFuture()) return false;
  return wait + demand.work / pace() > kPromised * (demand.deadline - clock_.Now());
}

absl::Time Admission::DueOf(const Demand& demand, absl::Time start) {
  return start + (demand.deadline == absl::InfiniteFuture() ? BatchQueue::kPatience : demand.work);
}

void Admission::MeasurePace(absl::Duration left) {
  const absl::Time now = clock_.Now();
  if (last_left_ != absl::InfinitePast()) {
    pace_.Add(absl::ToDoubleSeconds(left), absl::ToDoubleSeconds(std::max(absl::ZeroDuration(), now - last_left_)));
  }
  last_left_ = now;
}

absl::Status Admission::Refuse(Overload reason, const ModelBudget& model, const Demand& demand) {
  // Refused clients that all came back at the same moment would be refused again: the hint varies by a quarter.
  jitter_ = jitter_ * 1664525 + 1013904223;  // Numerical Recipes' generator: good enough to scatter.
  const double factor = 0.75 + 0.5 * static_cast<double>(jitter_ >> 8) / (1 << 24);
  const absl::Duration wait = WaitBefore(demand.priority, demand.giant);
  const bool late = reason == Overload::kDeadline;
  const absl::Duration done = demand.tokenization + wait + demand.work / pace();
  const absl::Duration hint = std::clamp(wait, absl::Milliseconds(50), absl::Seconds(60)) * factor;
  return Overloaded(reason,
                    {.queued_tokens = model.tokens_,
                     .max_queued_tokens = MaxTokens(model, demand.priority),
                     .expected_wait = late ? done : wait,
                     .max_wait = late ? demand.deadline - clock_.Now() : MaxWait(demand.priority),
                     .max_client_tokens = demand.max_client_tokens},
                    hint);
}

void Admission::Hold(Place& place, const Holding& more) {
  place.held_ = more;
  Count(place, more, +1);
}

void Admission::GiveBack(Place& place, Holding part) {
  Count(place, part, -1);
  place.held_.all_tokens -= part.all_tokens;
  place.held_.tokens -= part.tokens;
  place.held_.work -= part.work;
  // What comes to an empty queue leaves at once, and says nothing about how fast it could.
  if (ready_work_ <= absl::ZeroDuration()) last_left_ = absl::InfinitePast();
}

void Admission::Count(const Place& place, const Holding& holding, int sign) {
  const Demand& demand = place.demand_;
  ModelBudget& model = place.model_;
  model.tokens_ += sign * holding.tokens;
  model.uncharged_tokens_ += sign * holding.uncharged_tokens();
  int64_t& own_tokens = model.client_tokens_[demand.client];
  own_tokens += sign * holding.tokens;
  if (own_tokens == 0) model.client_tokens_.erase(demand.client);
  work_[static_cast<int>(demand.priority)][demand.giant] += sign * holding.work;
  if (!demand.giant) CountDue(place, sign * holding.work);
  if (place.settled_ && !demand.giant) ready_work_ += sign * holding.work;
  Client& client = clients_[demand.client];
  client.all_tokens += sign * holding.all_tokens;
  client.work += sign * holding.work;
}

void Admission::CountDue(const Place& place, absl::Duration more) {
  auto& works = due_work_[static_cast<int>(place.demand_.priority)];
  const absl::Time step = absl::UnixEpoch() + absl::Floor(place.due_ - absl::UnixEpoch(), kDueStep);
  absl::Duration& work = works[step];
  work += more;
  if (work == absl::ZeroDuration()) works.erase(step);
}

absl::Time Admission::StartOf(const Client& client, absl::Duration held) const {
  const absl::Time now = clock_.Now();
  // Not beyond what the client has waiting: calls that were cancelled or refused are not held against it.
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
  const std::lock_guard lock(mutex_);
  return WaitBefore(Priority::kInteractive, /*giant=*/true);
}

}  // namespace longembed
