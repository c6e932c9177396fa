#include "server/core/embed_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"

namespace longembed {

absl::StatusOr<Plan> CallPreparer::Prepare(const Input& input) {
  const size_t index = index_++;
  absl::StatusOr<Plan> plan = PrepareInput(model_, input, options_);
  if (!plan.ok()) return AtField(plan.status(), absl::StrCat("inputs[", index, "]"));
  vectors_ += plan->vectors();
  run_tokens_ += plan->run_tokens();
  const PlanLimits& limits = options_.plan.limits;
  if (vectors_ > limits.max_vectors) call_status_ = TooManyVectorsInCall(vectors_, limits.max_vectors);
  if (run_tokens_ > limits.max_run_tokens) call_status_ = TooManyRunTokensInCall(run_tokens_, limits.max_run_tokens);
  if (!call_status_.ok()) return call_status_;
  return plan;
}

std::shared_ptr<EmbedCall> EmbedCall::Start(ServedModel& model, WorkerPool& pool, const Clock& clock, EmbedOrder order,
                                            Done done) {
  std::shared_ptr<EmbedCall> call(new EmbedCall(model, clock, std::move(order), std::move(done)));
  pool.Run([call] { call->Prepare(); });
  return call;
}

EmbedCall::EmbedCall(ServedModel& model, const Clock& clock, EmbedOrder order, Done done)
    : model_(model), clock_(clock), order_(std::move(order)), done_(std::move(done)) {}

void EmbedCall::Cancel() {
  cancelled_ = true;
  std::shared_ptr<Job> job;
  {
    const std::lock_guard lock(mutex_);
    job = job_.lock();
  }
  // Before there is a job, Prepare or Submit sees the flag; after it was answered, nothing is left to cancel.
  if (job != nullptr) model_.lane().Cancel(*job);
}

absl::Status EmbedCall::CheckStillWanted() const {
  if (cancelled_) return CallCancelled();
  if (order_.job_options.deadline <= clock_.Now()) return DeadlineExceeded();
  return absl::OkStatus();
}

void EmbedCall::Prepare() {
  const absl::Time started = clock_.Now();
  std::vector<Sequence> sequences;
  const absl::Status status = PrepareInputs(sequences);
  answer_.tokenization = clock_.Now() - started;
  model_.metrics().ObserveTokenization(answer_.tokenization);
  if (!status.ok()) return std::move(done_)(status);
  if (sequences.empty()) return std::move(done_)(std::move(answer_));  // Every input failed by itself.
  Submit(std::move(sequences));
}

absl::Status EmbedCall::PrepareInputs(std::vector<Sequence>& sequences) {
  answer_.results.reserve(order_.inputs.size());
  CallPreparer preparer(model_.model(), order_.input_options);
  for (const Input& call_input : order_.inputs) {
    if (absl::Status status = CheckStillWanted(); !status.ok()) return status;
    absl::StatusOr<Plan> plan = preparer.Prepare(call_input);
    if (!plan.ok()) {
      if (!order_.partial_results || !preparer.call_status().ok()) return plan.status();
      answer_.results.emplace_back(plan.status());
      continue;
    }
    EmbeddedInput input;
    for (PlannedSequence& planned : plan->sequences) sequences.push_back(std::exchange(planned.sequence, {}));
    input.plan = *std::move(plan);
    answer_.results.emplace_back(std::move(input));
  }
  return absl::OkStatus();
}

void EmbedCall::Submit(std::vector<Sequence> sequences) {
  auto job = std::make_shared<Job>(
      std::move(sequences), order_.job_options,
      [call = shared_from_this()](absl::StatusOr<JobResult> result) { call->Finish(std::move(result)); });
  if (const absl::Status status = model_.lane().Submit(job); !status.ok()) return std::move(done_)(status);
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
  }
  // A Cancel that came before found no job.
  if (cancelled_) model_.lane().Cancel(*job);
}

void EmbedCall::Finish(absl::StatusOr<JobResult> result) {
  if (!result.ok()) return std::move(done_)(result.status());
  answer_.queue = result->queue;
  answer_.inference = result->inference;
  int64_t inputs = 0, tokens = 0, truncated = 0;
  std::span<const std::vector<float>> rows = result->vectors;
  for (size_t i = 0; i < answer_.results.size(); ++i) {
    absl::StatusOr<EmbeddedInput>& input = answer_.results[i];
    if (!input.ok()) continue;
    ++inputs;
    tokens += input->plan.tokens;
    truncated += input->plan.truncated_tokens;
    const auto own = static_cast<size_t>(input->plan.vectors());
    absl::StatusOr<std::vector<OutputVector>> vectors =
        FinishVectors(input->plan, rows.first(own), order_.vector_options);
    rows = rows.subspan(own);
    if (vectors.ok()) {
      input->vectors = *std::move(vectors);
      continue;
    }
    absl::Status status = AtField(vectors.status(), absl::StrCat("inputs[", i, "]"));
    if (!order_.partial_results) return std::move(done_)(std::move(status));
    input = std::move(status);
  }
  model_.metrics().CountInputs(inputs, tokens, truncated);
  std::move(done_)(std::move(answer_));
}

}  // namespace longembed
