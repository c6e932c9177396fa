// A model in service, with its encoder, admission, lane and metrics. Knows no gRPC and no protobuf.
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

// The workers of a device and the admission to their queue.
struct Device {
  Scheduler& scheduler;
  Admission& admission;
};

struct ServedModelOptions {
  LaneOptions lane;
  int64_t max_queued_tokens = 1 << 20;  // Limit of waiting tokens; beyond it calls get RESOURCE_EXHAUSTED.
};

// A model that serves requests. Multiple threads can use one ServedModel without external synchronization.
class ServedModel {
 public:
  // `device` and `metrics` must outlive the model. `name` is the model's name in requests.
  ServedModel(std::string name, std::unique_ptr<const Model> model, std::unique_ptr<Encoder> encoder,
              const Device& device, const ServedModelOptions& options, Metrics& metrics);

  const std::string& name() const { return name_; }
  const Model& model() const { return *model_; }
  const Encoder& encoder() const { return *encoder_; }
  Encoder& encoder() { return *encoder_; }
  Lane& lane() { return *lane_; }
  Admission& admission() { return device_.admission; }
  ModelBudget& budget() { return budget_; }

  // Tokens per byte of text, estimated from recently tokenized texts.
  double tokens_per_byte() const;
  void UpdateTokensPerByte(int64_t tokens, int64_t bytes);
  const LaneOptions& lane_options() const { return lane_->options(); }
  ModelMetrics& metrics() { return *metrics_; }

  // Returns the comparison of the model's precision with float32, if it was measured.
  const std::optional<PrecisionReport>& precision_report() const { return precision_report_; }
  void set_precision_report(const PrecisionReport& report) { precision_report_ = report; }

  // Returns for how long every batch has failed; 0 while fewer than kFailures in a row have. Any batch that succeeds,
  // even one of Probe, resets it.
  absl::Duration failing() const;
  // Returns the time since a running batch should have ended (QueueState::hanging); 0 if there is none.
  absl::Duration hanging() const { return lane_->queue_state().hanging; }
  // Returns whether calls are rejected because the encoder hangs.
  bool given_up() const { return given_up_; }
  // Rejects new calls, and answers those that wait or run in the lane with an error (true); or accepts calls again
  // (false).
  void GiveUp(bool given_up);
  // Lets a worker encode one short sequence, without waiting for it.
  void Probe();

 private:
  static constexpr int kFailures = 3;

  // Forwards the scheduler's observations to the metrics.
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
  QueueReading ReadQueue() const;

  const std::string name_;
  const std::unique_ptr<const Model> model_;
  const std::unique_ptr<Encoder> encoder_;
  ModelMetrics* metrics_ = nullptr;
  BatchObserver observer_;
  const Device device_;
  ModelBudget budget_;
  std::atomic<bool> given_up_ = false;
  static constexpr double kTextBytes = 8 << 10;  // Maximum weight of the texts of one call, in bytes.
  mutable Mutex estimate_mutex_;
  // The ratio is about 0.22 for English and 0.4 for Chinese.
  DecayedRatio tokens_per_byte_ ABSL_GUARDED_BY(estimate_mutex_){/*memory=*/20 * kTextBytes, /*assumed=*/0.3};
  mutable Mutex failures_mutex_;
  int failures_ ABSL_GUARDED_BY(failures_mutex_) = 0;          // In a row.
  absl::Time first_failure_ ABSL_GUARDED_BY(failures_mutex_);  // By the scheduler's clock.
  std::optional<PrecisionReport> precision_report_;
  std::unique_ptr<Lane> lane_;  // The scheduler's workers use the members above.
  Registration queue_reading_;  // Last, because scrapes read the lane.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_SERVED_MODEL_H_
