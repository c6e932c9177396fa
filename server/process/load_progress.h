// Reports the progress of loading models to the log, the metrics and health checks.
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

// The stages of loading, in their order.
enum class LoadStage { kVerifyingFiles, kMeasuringFloat32, kPackingWeights, kMeasuringPrecision, kReady };

// The progress of one model. Thread-safe.
class LoadProgress {
 public:
  // All arguments must outlive it. It logs at most one line per `log_interval`.
  LoadProgress(std::string model, Metrics& metrics, Health& health, const Clock& clock,
               absl::Duration log_interval = absl::Seconds(5));

  // Begins a stage. Returns a function that takes the completed fraction of the stage, 0 to 1. This object must outlive
  // it.
  std::function<void(double)> Begin(LoadStage stage);

 private:
  void Report(LoadStage stage, double share);

  const std::string model_;
  Metrics& metrics_;
  Health& health_;
  const Clock& clock_;
  const absl::Duration log_interval_;
  Mutex mutex_;
  absl::Time logged_ ABSL_GUARDED_BY(mutex_);
  int reported_percent_ ABSL_GUARDED_BY(mutex_) = -1;
  LoadStage reported_stage_ ABSL_GUARDED_BY(mutex_) = LoadStage::kReady;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_LOAD_PROGRESS_H_
