// Says on all ports how the server is, as its models are.
#ifndef LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_
#define LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_

#include <chrono>
#include <optional>

#include "absl/time/time.h"
#include "server/core/served_model.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/health.h"
#include "server/telemetry/metrics.h"

namespace longembed {

// Not thread-safe. What it is made of must outlive it; `port` may be null.
class HealthMonitor {
 public:
  // An encoder that has failed for `liveness_timeout` ends the server's liveness.
  HealthMonitor(GrpcServer& server, HealthPort* port, const ModelRegistry& models, Metrics& metrics,
                absl::Duration liveness_timeout = absl::Seconds(30))
      : server_(server),
        port_(port),
        models_(models),
        metrics_(metrics),
        liveness_timeout_(absl::ToChronoNanoseconds(liveness_timeout)) {}

  void SetServing(bool serving);

  // To be called once a second or so. An encoder that keeps failing takes the server out of service, until a probe
  // succeeds; in the end the kubelet, seeing a process that is not alive, starts it again.
  void CheckModels();

 private:
  void SetLive(bool live);

  GrpcServer& server_;
  HealthPort* const port_;
  const ModelRegistry& models_;
  Metrics& metrics_;
  const std::chrono::nanoseconds liveness_timeout_;
  bool serving_ = false;
  bool live_ = true;
  std::optional<std::chrono::steady_clock::time_point> failing_since_;  // The first check that saw it.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_
