// A model as the server runs it: model, encoder, admission, scheduler, metrics. Knows no gRPC and no protobuf.
#ifndef LONGEMBED_SERVER_CORE_SERVED_MODEL_H_
#define LONGEMBED_SERVER_CORE_SERVED_MODEL_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/embed/model.h"
#include "model/embed/precision_check.h"
#include "model/encoder/encoder.h"
#include "server/admission/admission.h"
#include "server/batching/decayed_ratio.h"
#include "server/batching/scheduler.h"
#include "server/telemetry/metrics.h"
#include "system/mutex.h"

namespace longembed {

// A device's workers and the admission to their queue.
struct Device {
  Scheduler& scheduler;
  Admission& admission;
};

struct ServedModelOptions {
  LaneOptions lane;
  int64_t max_queued_tokens = 1 << 20;  // More waiting tokens than this are refused with RESOURCE_EXHAUSTED.
};

// Multiple threads can use one ServedModel without external synchronization.
class ServedModel {
 public:
  // `device` and `metrics` must outlive it. `name` is what requests call it.
  ServedModel(std::string name, std::unique_ptr<const Model> model, std::unique_ptr<Encoder> encoder,
              const Device& device, const ServedModelOptions& options, Metrics& metrics);

  const std::string& name() const { return name_; }
  const Model& model() const { return *model_; }
  const Encoder& encoder() const { return *encoder_; }
  Encoder& encoder() { return *encoder_; }
  Lane& lane() { return *lane_; }
  Admission& admission() { return device_.admission; }
  ModelBudget& budget() { return budget_; }

  // Tokens per byte of text, by what was tokenized lately: for estimates.
  double tokens_per_byte() const;
  void UpdateTokensPerByte(int64_t tokens, int64_t bytes);
  const LaneOptions& lane_options() const { return lane_->options(); }
  ModelMetrics& metrics() { return *metrics_; }

  // The comparison of its precision with float32, if it was measured.
  const std::optional<PrecisionReport>& precision_report() const { return precision_report_; }
  void set_precision_report(const PrecisionReport& report) { precision_report_ = report; }

  // Encodes a few short and long sequences, so that the first request does not pay for what an engine does on its first
  // calls.
  absl::Status WarmUp();

  // For how long every batch has failed; 0 while none has, or fewer than kFailures in a row. A batch that succeeds ends
  // it, one of Probe's, too.
  absl::Duration failing() const;
  // For how long a batch has been running that should have ended (QueueState); 0 while none has.
  absl::Duration hanging() const { return lane_->queue_state().hanging; }
  // Whether calls are refused, because its encoder hangs.
  bool given_up() const { return given_up_; }
  // Refuses calls, and answers those that wait.
  void GiveUp(bool given_up);
  // Has one short sequence encoded, by a worker; does not wait for it.
  void Probe();

 private:
  static constexpr int kFailures = 3;

  // Passes the scheduler's observations on to the metrics.
  class BatchObserver final : public SchedulerObserver {
   public:
    void OnBatch(int64_t tokens, size_t sequences, absl::Duration inference) override;
    void OnDequeued(absl::Duration queued) override { metrics->ObserveQueue(queued); }
    void OnFailure() override;

    ModelMetrics* metrics = nullptr;
    ServedModel* model = nullptr;
  };
  void RecordSuccess();
  void RecordFailure();
  // A sequence of so many content tokens.
  absl::StatusOr<Sequence> SequenceOf(int tokens) const;
  absl::Status EncodeTwice(int tokens);
  // Encodes it and seeds the lane's throughput with the time that it took.
  absl::Status MeasureTwice(int tokens);
  QueueReading ReadQueue() const;

  const std::string name_;
  const std::unique_ptr<const Model> model_;
  const std::unique_ptr<Encoder> encoder_;
  ModelMetrics* metrics_ = nullptr;
  BatchObserver observer_;
  const Device device_;
  ModelBudget budget_;
  std::atomic<bool> given_up_ = false;
  static constexpr double kTextBytes = 8 << 10;  // One text weighs at most as much as so many bytes.
  mutable Mutex estimate_mutex_;
  // English is about 0.22, Chinese 0.4.
  DecayedRatio tokens_per_byte_ ABSL_GUARDED_BY(estimate_mutex_){/*memory=*/20 * kTextBytes, /*assumed=*/0.3};
  mutable Mutex failures_mutex_;
  int failures_ ABSL_GUARDED_BY(failures_mutex_) = 0;          // In a row.
  absl::Time first_failure_ ABSL_GUARDED_BY(failures_mutex_);  // By the scheduler's clock.
  std::optional<PrecisionReport> precision_report_;
  std::unique_ptr<Lane> lane_;  // The scheduler's workers use what stands above.
  Registration queue_reading_;  // Last: scrapes read the lane.
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
