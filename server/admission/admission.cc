#include "server/admission/admission.h"

#include <algorithm>
#include <cmath>

namespace longembed {

Place::~Place() {
  const std::lock_guard lock(admission_.mutex_);
  admission_.Hold(model_, demand_, -1);
  const auto client = admission_.clients_.find(demand_.client);
  if (--client->second.places == 0) admission_.clients_.erase(client);
}

absl::Status Place::Settle(int64_t tokens, absl::Duration work, bool giant, bool must_fit) {
  const std::lock_guard lock(admission_.mutex_);
  const bool grown = tokens > demand_.tokens;
  admission_.Hold(model_, demand_, -1);
  demand_.tokens = tokens;
  demand_.work = work;
  demand_.giant = giant;
  demand_ = admission_.Charge(demand_);
  // Its share and its wait were judged by the estimate; the tokens are memory.
  if (grown && !must_fit && !admission_.TokensFit(model_, demand_)) {
    const absl::Status refusal = admission_.Refuse(Overload::kQueueTokens, model_, demand_);
    demand_.tokens = 0;
    demand_.work = absl::ZeroDuration();
    return refusal;
  }
  admission_.Hold(model_, demand_, +1);
  return absl::OkStatus();
}

void Place::Release(int64_t tokens, absl::Duration work, bool runs) {
  const std::lock_guard lock(admission_.mutex_);
  Demand part = demand_;
  part.tokens = std::min(tokens, demand_.tokens);
  part.work = std::min(work, demand_.work);
  if (runs) admission_.MeasurePace(work, demand_);
  admission_.Hold(model_, part, -1);
  demand_.tokens -= part.tokens;
  demand_.work -= part.work;
}

absl::StatusOr<std::shared_ptr<Place>> Admission::Admit(ModelBudget& model, const Demand& wanted) {
  const Demand demand = Charge(wanted);
  const std::lock_guard lock(mutex_);
  if (const Verdict verdict = Judge(model, demand); verdict.refused) return Refuse(verdict.reason, model, demand);
  Client& client = clients_[demand.client];
  ++client.places;
  std::shared_ptr<Place> place(new Place(*this, model, demand));
  Hold(model, demand, +1);
  place->start_ = AdvanceClock(client, demand.work);
  return place;
}

Demand Admission::Charge(Demand demand) const {
  const absl::Duration most = Budget(demand.priority) / 8;
  if (demand.work <= most) return demand;
  demand.tokens = static_cast<int64_t>(static_cast<double>(demand.tokens) * absl::FDivDuration(most, demand.work));
  demand.work = most;
  return demand;
}

Admission::Verdict Admission::Judge(const ModelBudget& model, const Demand& demand) const {
  const int64_t max_tokens = MaxTokens(model, demand.priority);
  const auto found = clients_.find(demand.client);
  const Client client = found == clients_.end() ? Client{} : found->second;
  if (demand.max_client_tokens > 0 && client.tokens > 0 && client.tokens + demand.tokens > demand.max_client_tokens) {
    return {Overload::kClientLimit, true};
  }
  if (!TokensFit(model, demand)) return {Overload::kQueueTokens, true};
  if (model.tokens_ == 0) return {};
  const absl::Duration before = WaitBefore(demand.priority, demand.giant);
  if (before > Budget(demand.priority)) return {Overload::kQueueWait, true};
  const bool more_tokens = client.tokens > kShare * (max_tokens - model.tokens_ - demand.tokens);
  const bool more_work = std::min(client.work / pace(), before) > kShare * (Budget(demand.priority) - before);
  if (more_tokens || more_work) return {Overload::kClientShare, true};
  return {};
}

int64_t Admission::MaxTokens(const ModelBudget& model, Priority priority) {
  return priority == Priority::kBulk ? model.max_tokens_ / 2 : model.max_tokens_;
}

bool Admission::TokensFit(const ModelBudget& model, const Demand& demand) {
  return model.tokens_ == 0 || model.tokens_ + demand.tokens <= MaxTokens(model, demand.priority);
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

void Admission::MeasurePace(absl::Duration left, const Demand& held) {
  constexpr double kMemory = 2;  // Seconds.
  if (held.giant) return;
  const absl::Time now = clock_.Now();
  if (last_left_ != absl::InfinitePast()) {
    const double elapsed = std::max(0.0, absl::ToDoubleSeconds(now - last_left_));  // The clock may be set back.
    const double decay = std::exp(-elapsed / kMemory);
    left_seconds_ = decay * left_seconds_ + absl::ToDoubleSeconds(left);
    elapsed_seconds_ = decay * elapsed_seconds_ + elapsed;
  }
  // What comes to an empty queue leaves at once, and says nothing about how fast it could.
  const bool more = work_[0][false] + work_[1][false] > std::min(left, held.work);
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

void Admission::Hold(ModelBudget& model, const Demand& demand, int sign) {
  model.tokens_ += sign * demand.tokens;
  work_[static_cast<int>(demand.priority)][demand.giant] += sign * demand.work;
  Client& client = clients_[demand.client];
  client.tokens += sign * demand.tokens;
  client.work += sign * demand.work;
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
