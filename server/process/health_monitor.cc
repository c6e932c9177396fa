#include "server/process/health_monitor.h"

#include <algorithm>
#include <string>

#include "absl/time/clock.h"
#include "server/telemetry/log.h"

namespace longembed {

void HealthMonitor::SetServing(bool serving) {
  server_.SetServing(serving);
  if (port_ != nullptr) port_->health().SetServing(serving, server_.services());
  metrics_.SetServing(serving);
  serving_ = serving;
}

void HealthMonitor::CheckModels() {
  absl::Time failing_since = absl::InfiniteFuture();
  for (const auto& model : models_.models()) {
    // Read once: a batch may succeed meanwhile, which the next check sees.
    const absl::Time since = model->failing_since();
    if (since == absl::InfiniteFuture()) continue;
    const absl::Status probe = model->Probe();
    if (probe.ok()) continue;
    failing_since = std::min(failing_since, since);
    if (serving_) {
      Log(LogLevel::kError, "the encoder keeps failing; out of service",
          {{"model", model->name()}, {"why", std::string(probe.message())}});
    }
  }
  const bool healthy = failing_since == absl::InfiniteFuture();
  if (healthy && !serving_) Log(LogLevel::kInfo, "no encoder fails any more; back in service");
  if (healthy != serving_) SetServing(healthy);
  SetLive(healthy || absl::Now() - failing_since < liveness_timeout_);
}

void HealthMonitor::SetLive(bool live) {
  if (live_ && !live) Log(LogLevel::kError, "an encoder has failed for too long; health says that the process is dead");
  live_ = live;
  server_.health().SetLive(live);
  if (port_ != nullptr) port_->health().SetLive(live);
}

}  // namespace longembed
