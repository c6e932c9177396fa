#include "server/process/watchman.h"

#include <algorithm>
#include <string>

#include "absl/time/clock.h"
#include "server/telemetry/log.h"

namespace longembed {

void Watchman::SetServing(bool serving) {
  server_.SetServing(serving);
  if (port_ != nullptr) port_->health().SetServing(serving, server_.services());
  metrics_.SetServing(serving);
  serving_ = serving;
}

void Watchman::LookAtModels() {
  absl::Time failing_since = absl::InfiniteFuture();
  for (const auto& model : models_.models()) {
    if (model->failing_since() == absl::InfiniteFuture()) continue;
    const absl::Status probe = model->Probe();
    if (probe.ok()) continue;
    failing_since = std::min(failing_since, model->failing_since());
    if (serving_) {
      Log(LogLevel::kError, "the encoder keeps failing; out of service",
          {{"model", model->name()}, {"why", std::string(probe.message())}});
    }
  }
  const bool healthy = failing_since == absl::InfiniteFuture();
  if (healthy && !serving_) Log(LogLevel::kInfo, "no encoder fails any more; back in service");
  if (healthy != serving_) SetServing(healthy);
  SetLive(healthy || absl::Now() - failing_since < patience_);
}

void Watchman::SetLive(bool live) {
  if (live_ && !live) Log(LogLevel::kError, "an encoder has failed for too long; health says that the process is dead");
  live_ = live;
  server_.health().SetLive(live);
  if (port_ != nullptr) port_->health().SetLive(live);
}

}  // namespace longembed
