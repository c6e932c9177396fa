#include "server/process/health_monitor.h"

#include <algorithm>
#include <utility>

#include "server/telemetry/log.h"

namespace longembed {

void HealthMonitor::SetServing(bool serving) {
  health_.SetServing(serving);
  metrics_.SetServing(serving);
  serving_ = serving;
}

absl::Duration HealthMonitor::CheckModels(bool was_away) {
  absl::Duration longest;
  for (const auto& model : models_.models()) {
    const absl::Duration failing = model->failing(), hanging = was_away ? absl::ZeroDuration() : model->hanging();
    longest = std::max({longest, failing, hanging});
    model->GiveUp(hanging > absl::ZeroDuration());
    if (serving_ && hanging > absl::ZeroDuration()) {
      Log(LogLevel::kError, "the encoder hangs; out of service", {{"model", model->name()}});
    }
    if (failing == absl::ZeroDuration()) continue;
    if (serving_) Log(LogLevel::kError, "the encoder keeps failing; out of service", {{"model", model->name()}});
    if (hanging == absl::ZeroDuration()) model->Probe();
  }
  return longest;
}

absl::Duration HealthMonitor::CheckPool(bool was_away) const {
  const absl::Duration hanging = was_away ? absl::ZeroDuration() : pool_.hanging();
  if (serving_ && hanging > absl::ZeroDuration()) {
    Log(LogLevel::kError, "all threads that tokenize hang; out of service", {{"threads", pool_.threads()}});
  }
  return hanging;
}

void HealthMonitor::Check() {
  // After the process was stopped or starved of CPU time, its tasks seem to hang although they do not.
  constexpr absl::Duration kAbsence = absl::Seconds(3);
  const absl::Time now = clock_.Now();
  const bool was_away = now - std::exchange(checked_, now) > kAbsence;
  const absl::Duration longest = std::max(CheckModels(was_away), CheckPool(was_away));
  const bool healthy = longest == absl::ZeroDuration();
  if (healthy && !serving_) Log(LogLevel::kInfo, "recovered; back in service");
  if (healthy != serving_) SetServing(healthy);
  SetLive(healthy || longest < liveness_timeout_);
}

void HealthMonitor::SetLive(bool live) {
  if (live_ && !live) {
    Log(LogLevel::kError,
        "an encoder has failed, or an encoder or the tokenizer has hung, for too long; liveness reports NOT_SERVING");
  }
  live_ = live;
  health_.SetLive(live);
}

}  // namespace longembed
