// Derives the health that all ports report from the state of the models.
#ifndef LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_
#define LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_

#include "absl/time/time.h"
#include "server/core/model_registry.h"
#include "server/core/worker_pool.h"
#include "server/rpc/health.h"
#include "server/telemetry/metrics.h"

namespace longembed {

// Watches the tokenizer's threads and the models' encoders. Not thread-safe. All arguments must outlive it.
class HealthMonitor {
 public:
  // When an encoder has failed, or an encoder or `pool` has hung, for `liveness_timeout`, the process is reported as
  // not live.
  HealthMonitor(Health& health, const ModelRegistry& models, const WorkerPool& pool, Metrics& metrics,
                const Clock& clock, absl::Duration liveness_timeout = absl::Seconds(30))
      : health_(health),
        models_(models),
        pool_(pool),
        metrics_(metrics),
        clock_(clock),
        liveness_timeout_(liveness_timeout) {}

  void SetServing(bool serving);

  // Checks the models and the pool; call it about once a second. An encoder that keeps failing, or hangs, takes the
  // server out of service until a batch succeeds, and so do threads of the pool that all hang. Calls that wait for an
  // encoder that hangs get UNAVAILABLE. When the process is no longer live, the kubelet restarts it. Never blocks.
  void Check();

 private:
  // Returns the longest time for which an encoder has failed or hung.
  absl::Duration CheckModels(bool was_away);
  // Returns the time for which the tokenizer's threads have hung.
  absl::Duration CheckPool(bool was_away) const;
  void SetLive(bool live);

  Health& health_;
  const ModelRegistry& models_;
  const WorkerPool& pool_;
  Metrics& metrics_;
  const Clock& clock_;
  const absl::Duration liveness_timeout_;
  absl::Time checked_ = clock_.Now();
  bool serving_ = false;
  bool live_ = true;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_HEALTH_MONITOR_H_
