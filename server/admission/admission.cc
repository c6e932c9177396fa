#include "server/admission/admission.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace longembed {

Place::~Place() {
  const std::lock_guard lock(admission_.mutex_);
  admission_.Hold(model_, demand_, held_, -1);
  const auto client = admission_.clients_.find(demand_.client);
  if (--client->second.places == 0) admission_.clients_.erase(client);
}

absl::Status Place::Settle(int64_t tokens, absl::Duration work, bool giant, bool must_fit) {
  const std::lock_guard lock(admission_.mutex_);
  const bool grown = tokens > demand_.tokens;
  admission_.Hold(model_, demand_, std::exchange(held_, {}), -1);
  demand_.tokens = tokens;
  demand_.work = work;
  demand_.giant = giant;
  whole_ = admission_.Charge(demand_);
  // Its share and its wait were judged by the estimate; the tokens are memory.
  if (grown && !must_fit && !Admission::TokensFit(model_, demand_.priority, whole_)) {
    return admission_.Refuse(Overload::kQueueTokens, model_, demand_);
  }
  held_ = whole_;
  admission_.Hold(model_, demand_, held_, +1);
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
  if (runs) admission_.MeasurePace(work, released.work, demand_.giant);
  admission_.Hold(model_, demand_, released, -1);
  held_.all_tokens -= released.all_tokens;
  held_.tokens -= released.tokens;
  held_.work -= released.work;
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
  place->whole_ = place->held_ = wanted;
  Hold(model, demand, wanted, +1);
  place->start_ = AdvanceClock(client, wanted.work);
  return place;
}

Holding Admission::Charge(const Demand& demand) const {
  Holding charge{.all_tokens = demand.tokens, .tokens = demand.tokens, .work = demand.work};
  const absl::Duration most = Budget(demand.priority) / 8;
  if (demand.work <= most || demand.tokens == 0) return charge;
  const double share = absl::FDivDuration(most, demand.work);
  charge.tokens = std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(demand.tokens)));
  charge.work = most;
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
  if (before > Budget(demand.priority)) return {Overload::kQueueWait, true};
  const bool more_tokens = client.tokens > kShare * (max_tokens - model.tokens_ - wanted.tokens);
  const bool more_work = std::min(client.work / pace(), before) > kShare * (Budget(demand.priority) - before);
  if (more_tokens || more_work) return {Overload::kClientShare, true};
  return {};
}

int64_t Admission::MaxTokens(const ModelBudget& model, Priority priority) {
  return priority == Priority::kBulk ? model.max_tokens_ / 2 : model.max_tokens_;
}

bool Admission::TokensFit(const ModelBudget& model, Priority priority, const Holding& wanted) {
  return model.tokens_ == 0 || model.tokens_ + wanted.tokens <= MaxTokens(model, priority);
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

void Admission::MeasurePace(absl::Duration left, absl::Duration charged, bool giant) {
  constexpr double kMemory = 2;  // Seconds.
  if (giant) return;
  const absl::Time now = clock_.Now();
  if (last_left_ != absl::InfinitePast()) {
    const double elapsed = std::max(0.0, absl::ToDoubleSeconds(now - last_left_));  // The clock may be set back.
    const double decay = std::exp(-elapsed / kMemory);
    left_seconds_ = decay * left_seconds_ + absl::ToDoubleSeconds(left);
    elapsed_seconds_ = decay * elapsed_seconds_ + elapsed;
  }
  // What comes to an empty queue leaves at once, and says nothing about how fast it could.
  const bool more = work_[0][false] + work_[1][false] > charged;
  last_left_ = more ? now : absl::InfinitePast();
}

absl::Status Admission::Refuse(Overload reason, const ModelBudget& model, const Demand& demand) {
  // Refused clients that all came back at the same moment would be refused again: the hint varies by a quarter.
  jitter_ = jitter_ * 1664525 + 1013904223;  // Numerical Recipes' generator: good enough to scatter.
  const double factor = 0.75 + 0.5 * static_cast<double>(jitter_ >> 8) / (1 << 24);
  const absl::Duration wait = WaitBefore(demand.priority, demand.giant);
  const absl::Duration hint = std::clamp(wait, absl::Milliseconds(50), absl::Seconds(60)) * factor;
  return Overloaded(reason,
                    {.queued_tokens = model.tokens_,
                     .max_queued_tokens = MaxTokens(model, demand.priority),
                     .expected_wait = wait,
                     .max_wait = Budget(demand.priority),
                     .max_client_tokens = demand.max_client_tokens},
                    hint);
}

void Admission::Hold(ModelBudget& model, const Demand& demand, const Holding& holding, int sign) {
  model.tokens_ += sign * holding.tokens;
  work_[static_cast<int>(demand.priority)][demand.giant] += sign * holding.work;
  Client& client = clients_[demand.client];
  client.all_tokens += sign * holding.all_tokens;
  client.tokens += sign * holding.tokens;
  client.work += sign * holding.work;
  // The queue may end with a call that never runs: what follows is idleness, not a slow pace.
  if (work_[0][false] + work_[1][false] <= absl::ZeroDuration()) last_left_ = absl::InfinitePast();
}

absl::Time Admission::AdvanceClock(Client& client, absl::Duration work) {
  const absl::Time now = clock_.Now();
  const auto active = static_cast<int64_t>(clients_.size());
  // Not beyond what the client has waiting: calls that were cancelled or refused are not held against it.
  const absl::Duration held = std::max(absl::ZeroDuration(), client.work - work);
  const absl::Time start = std::clamp(client.clock, now, now + held * active);
  client.clock = start + work * active;
  return start;
}

absl::Duration Admission::expected_wait() const {
  const std::lock_guard lock(mutex_);
  return WaitBefore(Priority::kInteractive, /*giant=*/false);
}

}  // namespace longembed
