#include "server/process/health_monitor.h"

#include <string>

#include "server/telemetry/log.h"

namespace longembed {

void HealthMonitor::SetServing(bool serving) {
  server_.SetServing(serving);
  if (port_ != nullptr) port_->health().SetServing(serving, server_.services());
  metrics_.SetServing(serving);
  serving_ = serving;
}

void HealthMonitor::CheckModels() {
  bool healthy = true;
  for (const auto& model : models_.models()) {
    if (model->failing_since() == absl::InfiniteFuture()) continue;
    const absl::Status probe = model->Probe();
    if (probe.ok()) continue;
    healthy = false;
    if (serving_) {
      Log(LogLevel::kError, "the encoder keeps failing; out of service",
          {{"model", model->name()}, {"why", std::string(probe.message())}});
    }
  }
  if (healthy && !serving_) Log(LogLevel::kInfo, "no encoder fails any more; back in service");
  if (healthy != serving_) SetServing(healthy);
  const auto now = std::chrono::steady_clock::now();
  failing_since_ = healthy ? std::nullopt : std::optional(failing_since_.value_or(now));
  SetLive(healthy || now - *failing_since_ < liveness_timeout_);
}

void HealthMonitor::SetLive(bool live) {
  if (live_ && !live) Log(LogLevel::kError, "an encoder has failed for too long; liveness set to NOT_SERVING");
  live_ = live;
  server_.health().SetLive(live);
  if (port_ != nullptr) port_->health().SetLive(live);
}

}  // namespace longembed
