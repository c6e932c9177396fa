#include "server/core/embed_call.h"

#include <algorithm>
#include <map>
#include <new>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/core/call_preparer.h"
#include "server/errors/errors.h"
#include "server/errors/within_memory.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

int64_t TextBytes(const Model& model, const EmbedParams& params) {
  int64_t bytes = 0;
  for (const absl::StatusOr<Input>& input : params.inputs) {
    if (input.ok()) bytes += BytesToTokenize(model, *input, params.input_options);
  }
  return bytes;
}

}  // namespace

std::shared_ptr<EmbedCall> EmbedCall::Start(ServedModel& model, WorkerPool& pool, const Clock& clock,
                                            EmbedParams params, Done done) {
  std::shared_ptr<EmbedCall> call(new EmbedCall(model, pool, clock, std::move(params), std::move(done)));
  call->TracePhase(phase::kAdmission);
  call->Admit();
  return call;
}

EmbedCall::EmbedCall(ServedModel& model, WorkerPool& pool, const Clock& clock, EmbedParams params, Done done)
    : model_(model),
      pool_(pool),
      clock_(clock),
      params_(std::move(params)),
      bytes_(TextBytes(model_.model(), params_)),
      done_(std::move(done)),
      answer_memory_(model_.model().manifest, params_, answer_) {}

void EmbedCall::TracePhase(const char* phase) const {
  if (params_.call.trace != nullptr) params_.call.trace->Begin(phase, clock_.Now());
}

int64_t EmbedCall::MaxSequenceTokens() const {
  const PlanOptions& plan = params_.input_options.plan;
  return std::min(SequenceCapacity(model_.model().manifest, plan.extension).value_or(plan.limits.max_sequence_tokens),
                  plan.limits.max_sequence_tokens);
}

int64_t EmbedCall::CalibrationCost(int64_t tokens) const {
  const ModelManifest& manifest = model_.model().manifest;
  const auto& asked = params_.input_options.plan.extension.attention_calibration;
  // With these poolings one row is calibrated, or where each token gets a vector, rows that the plan counts.
  if (!asked.has_value() || manifest.pooling == Pooling::kCls || manifest.pooling == Pooling::kLast) return 0;
  const Calibration calibration = asked->Resolve(manifest, tokens);
  return model_.lane_options().costs.CostOfCalibration(
      tokens, {.basket = static_cast<int32_t>(calibration.basket),
               .first_layer = static_cast<int32_t>(manifest.layers - calibration.layers),
               .rows = {0, static_cast<int32_t>(tokens)}});
}

ResourceRequest EmbedCall::Estimate() const {
  const int64_t window = model_.model().manifest.trained_window;
  const CostModel& costs = model_.lane_options().costs;
  const PlanOptions& plan = params_.input_options.plan;
  const double prompt = model_.tokens_per_byte() * static_cast<double>(params_.input_options.prompt.size());
  const Caller& caller = params_.call.caller;
  ResourceRequest request{
      .client = caller.name, .max_client_tokens = caller.max_queued_tokens, .priority = params_.priority};
  // More tokens than this are cut by truncation, or the call is rejected once they are counted.
  const bool cut = plan.extension.windows.has_value();
  const int64_t most = std::min({plan.limits.max_run_tokens, cut ? plan.limits.max_run_tokens : MaxSequenceTokens(),
                                 plan.max_tokens.value_or(plan.limits.max_run_tokens)});
  Load load;
  const auto cost_of = [&](int64_t sequence) { return costs.CostOf(sequence) + CalibrationCost(sequence); };
  for (const absl::StatusOr<Input>& input : params_.inputs) {
    if (!input.ok()) continue;
    const auto* text = std::get_if<std::string_view>(&input->content);
    const double content = text != nullptr ? model_.tokens_per_byte() * static_cast<double>(text->size())
                                           : static_cast<double>(std::get<TokenIds>(input->content).ids.size());
    const int64_t tokens = std::min(static_cast<int64_t>(content + prompt) + 2, most);
    if (cut) {
      load.Add(tokens, (tokens + window - 1) / window * cost_of(std::min(tokens, window)), /*oversized=*/false);
    } else {
      const int64_t cost = cost_of(tokens);
      load.Add(tokens, cost, costs.IsOversizedCost(cost));
    }
  }
  request.tokens = load.tokens();
  request.oversized = load.is_oversized();
  request.work = model_.lane().WorkOf(load.cost());
  request.deadline = params_.call.deadline;
  request.tokenization = pool_.ExpectedTime({.client = caller.name, .bytes = bytes_});
  return request;
}

void EmbedCall::Admit() {
  // A stream has hundreds of waiting calls, each of which retries.
  constexpr absl::Duration kMaxRetryInterval = absl::Seconds(1);
  if (const absl::Status status = CheckNotCancelled(); !status.ok()) return std::move(done_)(status);
  if (model_.given_up()) return std::move(done_)(EncoderHangs(model_.name()));
  absl::StatusOr<std::shared_ptr<Permit>> permit = model_.admission().Admit(model_.budget(), Estimate());
  if (permit.ok()) return OnAdmitted(*std::move(permit));
  if (!params_.call.may_wait) return std::move(done_)(permit.status());
  const absl::Duration hint = RetryDelay(permit.status()).value_or(kMaxRetryInterval);
  pool_.RunAfter(std::min(hint, kMaxRetryInterval), [call = shared_from_this()] { call->Admit(); });
}

void EmbedCall::OnAdmitted(std::shared_ptr<Permit> permit) {
  {
    const MutexLock lock(mutex_);
    permit_ = std::move(permit);
  }
  admitted_ = clock_.Now();
  BeginPhase(params_.call.trace, phase::kTokenizeWait, admitted_);
  pool_.Run([call = shared_from_this()] { call->Prepare(); }, {.client = params_.call.caller.name, .bytes = bytes_});
}

void EmbedCall::Cancel() {
  cancelled_ = true;
  std::shared_ptr<Job> job;
  std::shared_ptr<Permit> permit;
  {
    const MutexLock lock(mutex_);
    job = job_.lock();
    permit = permit_;
  }
  // If there is no job yet, Prepare or Submit sees the flag. If the job has been answered, nothing is left to cancel.
  if (permit != nullptr) permit->ReleaseAll();
  if (job != nullptr) model_.lane().Cancel(*job);
}

absl::Status EmbedCall::CheckNotCancelled() const {
  if (cancelled_) return CallCancelled();
  if (params_.call.deadline <= clock_.Now()) return DeadlineExceeded();
  return absl::OkStatus();
}

void EmbedCall::Prepare() {
  const absl::Time started = clock_.Now();
  BeginPhase(params_.call.trace, phase::kTokenize, started);
  answer_.queue = started - admitted_;
  model_.metrics().ObserveTokenizationWait(answer_.queue);
  std::vector<Sequence> sequences;
  const absl::Status status = PlanSequences(sequences);
  answer_.tokenization = clock_.Now() - started;
  model_.metrics().ObserveTokenization(answer_.tokenization);
  if (status.ok() && !sequences.empty()) return Submit(std::move(sequences));
  {
    const MutexLock lock(mutex_);
    permit_ = nullptr;
  }
  if (!status.ok()) return std::move(done_)(status);
  std::move(done_)(std::move(answer_));  // Every input failed with its own error.
}

absl::Status EmbedCall::PlanSequences(std::vector<Sequence>& sequences) {
  return WithinMemory([&] {
    RETURN_IF_ERROR(PrepareInputs(sequences));
    RETURN_IF_ERROR(answer_memory_.Reserve(sequences));
    return Settle(sequences);
  });
}

absl::Status EmbedCall::Settle(const std::vector<Sequence>& sequences) {
  const CostModel& costs = model_.lane_options().costs;
  Load load;
  for (const Sequence& sequence : sequences) {
    load.Add(sequence.size(), costs.CostOf(sequence), costs.IsOversized(sequence));
  }
  UpdateTokensPerByte();
  work_ = model_.lane().WorkOf(load.cost());
  RETURN_IF_ERROR(CheckNotCancelled());
  const MutexLock lock(mutex_);
  return permit_->Settle(load.tokens(), work_, load.is_oversized(), /*must_fit=*/params_.call.may_wait);
}

void EmbedCall::UpdateTokensPerByte() const {
  // Such queries are lengthened to a fixed number of tokens.
  if (params_.input_options.plan.token_vectors == TokenVectors::kQuery) return;
  const ModelManifest& manifest = model_.model().manifest;
  const auto specials = static_cast<int64_t>(manifest.special_prefix.size() + manifest.special_suffix.size());
  int64_t tokens = 0, bytes = 0;
  for (size_t i = 0; i < answer_.results.size(); ++i) {
    if (!answer_.results[i].ok()) continue;
    const auto* text = std::get_if<std::string_view>(&params_.inputs[i]->content);
    if (text == nullptr) continue;
    const Plan& plan = answer_.results[i]->plan;
    if (plan.estimated) continue;
    tokens += plan.tokens + plan.truncated_tokens - specials;
    bytes += static_cast<int64_t>(text->size() + params_.input_options.prompt.size());
  }
  model_.UpdateTokensPerByte(tokens, bytes);
}

absl::Status EmbedCall::PrepareInputs(std::vector<Sequence>& sequences) {
  answer_.results.reserve(params_.inputs.size());
  CallPreparer preparer(model_.model(), params_.input_options, params_.call.memory);
  int64_t bytes = 0;
  for (const absl::StatusOr<Input>& call_input : params_.inputs) {
    RETURN_IF_ERROR(CheckNotCancelled());
    absl::StatusOr<Plan> plan = preparer.Prepare(call_input);
    if (!plan.ok()) {
      if (!params_.partial_results || !preparer.call_status().ok()) return plan.status();
      answer_.results.emplace_back(plan.status());
      continue;
    }
    bytes += PlanBytes(*plan);
    RETURN_IF_ERROR(params_.call.memory.Hold(Memory::kPlans, bytes));
    EmbeddedInput input;
    for (PlannedSequence& planned : plan->sequences) sequences.push_back(std::exchange(planned.sequence, {}));
    input.plan = *std::move(plan);
    answer_.results.emplace_back(std::move(input));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Job>> EmbedCall::MakeJob(std::vector<Sequence> sequences) {
  const MutexLock lock(mutex_);
  const JobOptions options{.priority = params_.priority,
                           .deadline = params_.call.deadline,
                           .start = permit_->start(),
                           .due = permit_->due(),
                           .work = work_,
                           .permit = std::move(permit_),
                           .began = &began_};
  try {
    return std::make_shared<Job>(
        std::move(sequences), options,
        [call = shared_from_this()](absl::StatusOr<JobResult> result) { call->OnEncoded(std::move(result)); });
  } catch (const std::bad_alloc&) {  // A job allocates a result for each span.
    return ServerOutOfMemory();
  }
}

void EmbedCall::Submit(std::vector<Sequence> sequences) {
  TracePhase(phase::kQueue);
  const absl::StatusOr<std::shared_ptr<Job>> job = MakeJob(std::move(sequences));
  if (!job.ok()) return std::move(done_)(job.status());
  if (const absl::Status status = model_.lane().Submit(*job); !status.ok()) return std::move(done_)(status);
  {
    const MutexLock lock(mutex_);
    job_ = *job;
  }
  // A Cancel before this point found no job.
  if (cancelled_) model_.lane().Cancel(**job);
}

namespace {

// Returns the error of a call whose batch failed. The encoder's OUT_OF_MEMORY has no retry delay.
absl::Status BatchError(const absl::Status& status) {
  return IsOutOfMemory(status) ? ServerOutOfMemory(std::string(status.message())) : status;
}

// Returns the number of components of all vectors.
int64_t ComponentsOf(const JobResult& result) {
  int64_t components = 0;
  for (const std::vector<float>& row : result.vectors) components += std::ssize(row);
  for (const SparseVector& row : result.sparse) components += row.size();
  return components;
}

}  // namespace

void EmbedCall::OnEncoded(absl::StatusOr<JobResult> result) {
  // Up to this size an answer takes less than a millisecond, and passing it to another thread would delay it.
  constexpr int64_t kSmallAnswer = 32 << 10;
  // Writing four components as JSON takes about as long as tokenizing a byte.
  constexpr int64_t kComponentsPerByte = 4;
  if (began_ != absl::InfiniteFuture()) BeginPhase(params_.call.trace, phase::kInference, began_);
  TracePhase(phase::kFinish);
  if (!result.ok()) return std::move(done_)(BatchError(result.status()));
  const int64_t components = ComponentsOf(*result);
  if (components <= kSmallAnswer) return Finish(*std::move(result));
  const absl::Status queued = WithinMemory([&] {
    auto finish = [call = shared_from_this(), result = *std::move(result)]() mutable {
      if (const absl::Status status = call->CheckNotCancelled(); !status.ok()) return std::move(call->done_)(status);
      call->Finish(std::move(result));
    };
    pool_.RunFirst(std::move(finish), {.client = params_.call.caller.name, .bytes = components / kComponentsPerByte});
    return absl::OkStatus();
  });
  if (!queued.ok()) std::move(done_)(queued);
}

void EmbedCall::Finish(JobResult result) {
  const absl::Status status = WithinMemory([&] { return FinishInputs(result); });
  if (!status.ok()) return std::move(done_)(status);
  std::move(done_)(std::move(answer_));
}

namespace {

// Encoder output for inputs that are not finished yet.
struct RowsLeft {
  std::span<std::vector<float>> dense;
  std::span<SparseVector> sparse;
};

// Makes an input's vectors from its rows, and frees the rows.
absl::StatusOr<std::vector<OutputVector>> FinishInput(const Plan& plan, const EmbedParams& params, RowsLeft& left) {
  const auto own = static_cast<size_t>(plan.rows());
  const auto finish = [own](auto& rows, auto make) {
    absl::StatusOr<std::vector<OutputVector>> vectors = make(rows.first(own));
    for (auto& row : rows.first(own)) std::exchange(row, {});
    rows = rows.subspan(own);
    return vectors;
  };
  if (params.input_options.plan.sparse) {
    return finish(left.sparse, [&](auto rows) {
      return FinishSparse(plan, rows, params.max_terms, params.vector_options.beyond_encoding);
    });
  }
  return finish(left.dense, [&](auto rows) { return FinishVectors(plan, rows, params.vector_options); });
}

}  // namespace

absl::Status EmbedCall::FinishInputs(JobResult& result) {
  answer_.queue += result.queue;
  answer_.inference = result.inference;
  if (sparse()) {
    int64_t terms = 0;
    for (const SparseVector& row : result.sparse) terms += row.size();
    RETURN_IF_ERROR(answer_memory_.ReserveTerms(terms));
  }
  Tally tally;
  RowsLeft left{.dense = result.vectors, .sparse = result.sparse};
  for (size_t i = 0; i < answer_.results.size(); ++i) {
    absl::StatusOr<EmbeddedInput>& input = answer_.results[i];
    if (!input.ok()) continue;
    tally.Add(input->plan);
    absl::StatusOr<std::vector<OutputVector>> vectors = FinishInput(input->plan, params_, left);
    if (vectors.ok()) {
      input->vectors = *std::move(vectors);
      continue;
    }
    absl::Status status = AtField(vectors.status(), absl::StrCat("inputs[", i, "]"));
    if (!params_.partial_results) return status;
    input = std::move(status);
  }
  if (sparse()) {
    RETURN_IF_ERROR(answer_memory_.SettleTerms());
  }
  Count(tally);
  return absl::OkStatus();
}

void EmbedCall::Tally::Add(const Plan& plan) {
  ++inputs;
  tokens += plan.tokens;
  truncated_tokens += plan.truncated_tokens;
  for (const PlannedSequence& planned : plan.sequences) ++sequences[planned.positions.method];
}

void EmbedCall::Count(const Tally& tally) const {
  ModelMetrics& metrics = model_.metrics();
  metrics.CountInputs(tally.inputs, tally.tokens, tally.truncated_tokens);
  for (const auto& [method, count] : tally.sequences) metrics.CountSequences(method, count);
  if (const Caller& caller = params_.call.caller; caller.has_key) metrics.CountClientTokens(caller.name, tally.tokens);
  if (RequestTrace* const trace = params_.call.trace; trace != nullptr) {
    trace->inputs = tally.inputs;
    trace->tokens = tally.tokens;
    trace->truncated_tokens = tally.truncated_tokens;
    for (const auto& [method, count] : tally.sequences) {
      trace->sequences += count;
      trace->method = method;  // Plain comes first, so the last method is that of texts beyond the window.
    }
  }
}

}  // namespace longembed
