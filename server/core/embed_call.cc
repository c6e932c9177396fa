#include "server/core/embed_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"

namespace longembed {

absl::StatusOr<Plan> PrepareCallInput(const Model& model, const Input& input, const InputOptions& options,
                                      int64_t max_tokens_per_input, size_t index) {
  const auto here = [index](const absl::Status& status) {
    return AtField(status, absl::StrCat("inputs[", index, "]"));
  };
  absl::StatusOr<Plan> plan = PrepareInput(model, input, options);
  if (!plan.ok()) return here(plan.status());
  const int64_t whole = plan->tokens + plan->truncated_tokens;
  if (whole > max_tokens_per_input) return here(InputBeyondServerLimit(whole, max_tokens_per_input));
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
  if (job != nullptr) model_.scheduler().Cancel(*job);
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
  for (size_t i = 0; i < order_.inputs.size(); ++i) {
    if (absl::Status status = CheckStillWanted(); !status.ok()) return status;
    absl::StatusOr<Plan> plan =
        PrepareCallInput(model_.model(), order_.inputs[i], order_.input_options, order_.max_tokens_per_input, i);
    if (!plan.ok()) {
      if (!order_.partial_results) return plan.status();
      answer_.results.emplace_back(plan.status());
      continue;
    }
    EmbeddedInput input;
    for (PlannedSequence& planned : plan->sequences) {
      input.sequence_tokens.push_back(planned.sequence.size());
      sequences.push_back(std::exchange(planned.sequence, {}));
    }
    input.plan = *std::move(plan);
    answer_.results.emplace_back(std::move(input));
  }
  return absl::OkStatus();
}

void EmbedCall::Submit(std::vector<Sequence> sequences) {
  auto job = std::make_shared<Job>(
      std::move(sequences), order_.job_options,
      [call = shared_from_this()](absl::StatusOr<JobResult> result) { call->Finish(std::move(result)); });
  if (const absl::Status status = model_.scheduler().Submit(job); !status.ok()) return std::move(done_)(status);
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
  }
  // A Cancel that came before found no job.
  if (cancelled_) model_.scheduler().Cancel(*job);
}

void EmbedCall::Finish(absl::StatusOr<JobResult> result) {
  if (!result.ok()) return std::move(done_)(result.status());
  answer_.queue = result->queue;
  answer_.inference = result->inference;
  int64_t inputs = 0, tokens = 0, truncated = 0;
  size_t next_vector = 0;
  for (absl::StatusOr<EmbeddedInput>& input : answer_.results) {
    if (!input.ok()) continue;
    ++inputs;
    tokens += input->plan.tokens;
    truncated += input->plan.truncated_tokens;
    absl::StatusOr<std::vector<float>> vector = FinishVector(result->vectors[next_vector++], order_.vector_options);
    if (vector.ok()) {
      input->vector = *std::move(vector);
    } else if (order_.partial_results) {
      input = vector.status();
    } else {
      return std::move(done_)(vector.status());
    }
  }
  model_.metrics().CountInputs(inputs, tokens, truncated);
  std::move(done_)(std::move(answer_));
}

}  // namespace longembed
