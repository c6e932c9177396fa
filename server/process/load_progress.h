// Progress of loading the models, for the log, the metrics and health checks.
#ifndef LONGEMBED_SERVER_PROCESS_LOAD_PROGRESS_H_
#define LONGEMBED_SERVER_PROCESS_LOAD_PROGRESS_H_

#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "server/rpc/health.h"
#include "server/telemetry/metrics.h"
#include "system/clock.h"
#include "system/mutex.h"

namespace longembed {

// In their order.
enum class LoadStage { kVerifyingFiles, kMeasuringFloat32, kPackingWeights, kMeasuringPrecision, kReady };

// One model's. Any thread.
class LoadProgress {
 public:
  // All must outlive it. The log gets a line when `log_interval` has passed since the last.
  LoadProgress(std::string model, Metrics& metrics, Health& health, const Clock& clock,
               absl::Duration log_interval = absl::Seconds(5));

  // Begins a stage. Returns a function that takes the fraction that is done, 0 to 1; this must outlive its calls.
  std::function<void(double)> Begin(LoadStage stage);

 private:
  void Tell(LoadStage stage, double share);

  const std::string model_;
  Metrics& metrics_;
  Health& health_;
  const Clock& clock_;
  const absl::Duration log_interval_;
  Mutex mutex_;
  absl::Time logged_ ABSL_GUARDED_BY(mutex_);
  int told_percent_ ABSL_GUARDED_BY(mutex_) = -1;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_LOAD_PROGRESS_H_
