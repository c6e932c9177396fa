#include "server/core/served_model.h"

#include <algorithm>
#include <utility>

#include "server/core/warm_up.h"
#include "server/errors/errors.h"

namespace longembed {

ServedModel::ServedModel(std::string name, std::unique_ptr<const Model> model, std::unique_ptr<Encoder> encoder,
                         const Device& device, const ServedModelOptions& options, Metrics& metrics)
    : name_(std::move(name)),
      model_(std::move(model)),
      encoder_(std::move(encoder)),
      device_(device),
      budget_(options.max_queued_tokens) {
  metrics_ = &metrics.ForModel(name_);
  const ModelManifest& manifest = model_->manifest;
  metrics.SetModelInfo(name_, {.architecture = manifest.architecture,
                               .precision = PrecisionName(encoder_->precision()),
                               .engine = encoder_->engine(),
                               .kernels = encoder_->kernels(),
                               .device = encoder_->device(),
                               .dimensions = manifest.vector_size,
                               .trained_window = manifest.trained_window});
  metrics_->CountSequences("", 0);  // Creates the counter early: rate() would miss the first event of a new one.
  observer_.metrics = metrics_;
  observer_.model = this;
  lane_ = device_.scheduler.AddLane(*encoder_, options.lane, &observer_);
  queue_reading_ = metrics.ReadQueue(name_, [this] { return ReadQueue(); });
}

QueueReading ServedModel::ReadQueue() const {
  const QueueState state = lane_->queue_state();
  return {.jobs = static_cast<int64_t>(state.jobs),
          .tokens = state.tokens,
          .oldest = state.oldest,
          .running_batches = state.running_batches,
          .expected_wait = device_.admission.expected_wait()};
}

void ServedModel::Probe() {
  absl::StatusOr<Sequence> sequence = SampleSequence(*model_, 1);
  if (!sequence.ok()) return RecordFailure();
  std::vector<Sequence> sequences;
  sequences.push_back(*std::move(sequence));
  // The observer sees the result. The lane rejects the job only if it is closing.
  lane_->Submit(std::make_shared<Job>(std::move(sequences), JobOptions{}, [](absl::StatusOr<JobResult>) {}))
      .IgnoreError();
}

void ServedModel::GiveUp(bool given_up) {
  given_up_ = given_up;
  if (given_up) lane_->AnswerAll(EncoderHangs(name_));
}

void ServedModel::UpdateTokensPerByte(int64_t tokens, int64_t bytes) {
  constexpr double kFewest = 0.02, kMost = 2.0;  // Bounds for the ratio of one call.
  if (bytes <= 0) return;
  const double seen = std::clamp(static_cast<double>(tokens) / static_cast<double>(bytes), kFewest, kMost);
  const double weight = std::min(static_cast<double>(bytes), kTextBytes);
  const MutexLock lock(estimate_mutex_);
  tokens_per_byte_.Add(seen * weight, weight);
}

double ServedModel::tokens_per_byte() const {
  const MutexLock lock(estimate_mutex_);
  return tokens_per_byte_.value();
}

absl::Duration ServedModel::failing() const {
  const MutexLock lock(failures_mutex_);
  return failures_ < kFailures ? absl::ZeroDuration() : device_.scheduler.clock().Now() - first_failure_;
}

void ServedModel::RecordSuccess() {
  const MutexLock lock(failures_mutex_);
  failures_ = 0;
}

void ServedModel::RecordFailure() {
  const MutexLock lock(failures_mutex_);
  if (failures_++ == 0) first_failure_ = device_.scheduler.clock().Now();
}

void ServedModel::BatchObserver::OnBatch(int64_t tokens, size_t sequences, absl::Duration inference) {
  metrics->ObserveBatch(tokens, static_cast<int64_t>(sequences), inference);
  model->RecordSuccess();
}

void ServedModel::BatchObserver::OnFailure() {
  metrics->CountEncoderFailure();
  model->RecordFailure();
}

}  // namespace longembed
