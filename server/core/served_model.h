// A model as the server runs it: model, encoder, scheduler, metrics. Knows no gRPC and no protobuf.
#ifndef LONGEMBED_SERVER_CORE_SERVED_MODEL_H_
#define LONGEMBED_SERVER_CORE_SERVED_MODEL_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/embed/model.h"
#include "model/embed/precision_check.h"
#include "model/encoder/encoder.h"
#include "server/batching/scheduler.h"
#include "server/telemetry/metrics.h"

namespace longembed {

// Multiple threads can use one ServedModel without external synchronization.
class ServedModel {
 public:
  // `scheduler` and `metrics` must outlive it. `name` is what requests call it.
  ServedModel(std::string name, std::unique_ptr<const Model> model, std::unique_ptr<Encoder> encoder,
              Scheduler& scheduler, const LaneOptions& options, Metrics& metrics);

  const std::string& name() const { return name_; }
  const Model& model() const { return *model_; }
  const Encoder& encoder() const { return *encoder_; }
  Encoder& encoder() { return *encoder_; }
  Lane& lane() { return *lane_; }
  const LaneOptions& lane_options() const { return lane_->options(); }
  ModelMetrics& metrics() { return *metrics_; }

  // How its precision compares with float32's, when that was measured.
  const std::optional<PrecisionReport>& precision_report() const { return precision_report_; }
  void set_precision_report(const PrecisionReport& report) { precision_report_ = report; }

  // Encodes a few short and long sequences, so that the first request does not pay for what an engine does on its first
  // calls.
  absl::Status WarmUp();

 private:
  // Passes what the scheduler sees on to the metrics.
  class BatchObserver final : public SchedulerObserver {
   public:
    void OnBatch(int64_t tokens, size_t sequences, absl::Duration inference) override {
      metrics->ObserveBatch(tokens, static_cast<int64_t>(sequences), inference);
    }
    void OnDequeued(absl::Duration queued) override { metrics->ObserveQueue(queued); }

    ModelMetrics* metrics = nullptr;
  };

  const std::string name_;
  const std::unique_ptr<const Model> model_;
  const std::unique_ptr<Encoder> encoder_;
  ModelMetrics* metrics_ = nullptr;
  BatchObserver observer_;
  std::optional<PrecisionReport> precision_report_;
  std::unique_ptr<Lane> lane_;  // Last: the scheduler's workers use what stands above.
};

// The models of one server, by name. Immutable while it serves.
class ModelRegistry {
 public:
  // Errors: INVALID_ARGUMENT when the name is taken.
  absl::Status Add(std::unique_ptr<ServedModel> model);

  // An empty name finds the only model. `field` is where the request names it. Errors: NOT_FOUND, INVALID_ARGUMENT.
  absl::StatusOr<ServedModel*> Find(std::string_view name, std::string_view field) const;

  const std::vector<std::unique_ptr<ServedModel>>& models() const { return models_; }

 private:
  std::vector<std::string> Names() const;

  std::vector<std::unique_ptr<ServedModel>> models_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_SERVED_MODEL_H_
