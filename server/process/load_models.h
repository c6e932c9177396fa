// Loads the models of the configuration, warms them up, and measures their precision.
#ifndef LONGEMBED_SERVER_PROCESS_LOAD_MODELS_H_
#define LONGEMBED_SERVER_PROCESS_LOAD_MODELS_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/admission/admission.h"
#include "server/batching/scheduler.h"
#include "server/config/config.h"
#include "server/core/served_model.h"
#include "server/rpc/health.h"
#include "server/telemetry/metrics.h"
#include "system/clock.h"

namespace longembed {

// The devices that models run on. A device has one scheduler and one admission, because its models share its workers.
// Not thread-safe.
class Devices {
 public:
  // `clock` must outlive the devices, and the devices must outlive the models that are loaded onto them.
  Devices(const ServerConfig& config, const Clock& clock);

  // Returns the device that an encoder names.
  Device ForDevice(const std::string& device);

  const Clock& clock() const { return clock_; }
  const std::string& cpu_kernels() const { return cpu_kernels_; }

 private:
  struct Owned {
    Owned(const AdmissionOptions& admission_options, const SchedulerOptions& options, const Clock& clock)
        : admission(admission_options, clock), scheduler(options, clock) {}
    Admission admission;  // First, because the scheduler's jobs release what they hold of it.
    Scheduler scheduler;
  };

  const std::string cpu_kernels_;
  const int compute_threads_;
  const int cuda_streams_;
  const AdmissionOptions admission_;
  const Clock& clock_;
  std::map<std::string, std::unique_ptr<Owned>> by_device_;
};

// Loads a model, and reports progress to the log, metrics and health. Takes seconds, or minutes for billions of
// weights. Error messages are sentences for the author of the configuration.
absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelConfig& config, Devices& devices,
                                                             Metrics& metrics, Health& health);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_LOAD_MODELS_H_
