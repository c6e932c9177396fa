// Sets the health of all ports by the state of the models.
#ifndef LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_
#define LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_

#include "absl/time/time.h"
#include "server/core/served_model.h"
#include "server/rpc/health.h"
#include "server/telemetry/metrics.h"

namespace longembed {

// Not thread-safe. What it is made of must outlive it.
class HealthMonitor {
 public:
  // An encoder that has failed for `liveness_timeout` ends the server's liveness.
  HealthMonitor(Health& health, const ModelRegistry& models, Metrics& metrics, const Clock& clock,
                absl::Duration liveness_timeout = absl::Seconds(30))
      : health_(health), models_(models), metrics_(metrics), clock_(clock), liveness_timeout_(liveness_timeout) {}

  void SetServing(bool serving);

  // To be called once a second or so. An encoder that keeps failing, or hangs, takes the server out of service, until a
  // batch succeeds; calls that wait for one that hangs get UNAVAILABLE. In the end the kubelet, seeing a process that
  // is not alive, starts it again. Never waits.
  void CheckModels();

 private:
  void SetLive(bool live);

  Health& health_;
  const ModelRegistry& models_;
  Metrics& metrics_;
  const Clock& clock_;
  const absl::Duration liveness_timeout_;
  absl::Time checked_ = clock_.Now();
  bool serving_ = false;
  bool live_ = true;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_
