// From the configuration to models that are ready to serve: loaded, warmed up, their precision measured.
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

// One scheduler and one admission a device: its models share the device's workers. Not thread-safe.
class Devices {
 public:
  // `clock` must outlive it, and it the models that are loaded onto it.
  Devices(const ServerConfig& config, const Clock& clock);

  // By the name that an encoder gives its device.
  Device ForDevice(const std::string& device);

  const Clock& clock() const { return clock_; }
  const std::string& cpu_kernels() const { return cpu_kernels_; }

 private:
  struct Owned {
    Owned(const AdmissionOptions& admission_options, const SchedulerOptions& options, const Clock& clock)
        : admission(admission_options, clock), scheduler(options, clock) {}
    Admission admission;  // First: the scheduler's jobs give back what they hold of it.
    Scheduler scheduler;
  };

  const std::string cpu_kernels_;
  const int compute_threads_;
  const int cuda_streams_;
  const AdmissionOptions admission_;
  const Clock& clock_;
  std::map<std::string, std::unique_ptr<Owned>> by_device_;
};

// Takes seconds, of a model of billions of weights minutes; reports progress to log, metrics and health. Errors are
// sentences for the author of the configuration.
absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelConfig& config, Devices& devices,
                                                             Metrics& metrics, Health& health);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_LOAD_MODELS_H_
