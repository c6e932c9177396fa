#include "model/embed/pipeline.h"

#include <algorithm>
#include <utility>

#include "model/errors/errors.h"
#include "model/text/prompt.h"
#include "model/vector/token_pooling.h"

namespace longembed {
namespace {

// Spans that a client names have to be there; those that follow from the text may be cut away with it.
absl::StatusOr<Plan> PlanWithSpans(const Model& model, InputTokens tokens, const std::vector<Range>& spans,
                                   const InputOptions& options) {
  const SpanChoice choice{.ranges = spans, .required = std::holds_alternative<GivenRanges>(options.spans)};
  tokens.spans = &choice;
  return PlanInput(model.manifest, tokens, options.plan, *model.rotary_tables);
}

// A plan without spans of its own, whose one sequence gives a vector for each of its tokens.
absl::StatusOr<Plan> PlanSequenceTokens(const Model& model, const InputTokens& tokens, const InputOptions& options) {
  absl::StatusOr<Plan> plan = PlanInput(model.manifest, tokens, options.plan, *model.rotary_tables);
  if (!plan.ok()) return plan.status();
  if (plan->sequences.size() != 1) return SpansWithWindows("spans");
  std::vector<Range> each = SpansOfEvery(1, plan->sequences.front().sequence.size());
  plan->sequences.front().sequence.spans = each;
  plan->spans = std::move(each);
  return plan;
}

absl::StatusOr<std::vector<Range>> SpansOfText(std::string_view text, const Input& input, const PromptedTokens& tokens,
                                               const SpanRequest& request) {
  if (const auto* every = std::get_if<EveryTokens>(&request)) {
    return SpansOfEvery(every->tokens, static_cast<int64_t>(tokens.content.size()));
  }
  if (std::holds_alternative<SentenceSpans>(request)) return TokensOfSentences(text, tokens.content_ranges);
  return TokensOfCodePoints(text, input.ranges, tokens.content_ranges);
}

absl::StatusOr<Plan> PrepareText(const Model& model, std::string_view text, const Input& input,
                                 const InputOptions& options) {
  const absl::StatusOr<PromptedTokens> prompted =
      TokenizeWithPrompt(*model.tokenizer, options.prompt, text, options.plan.limits.max_tokens);
  if (!prompted.ok()) return prompted.status();
  const InputTokens tokens{.prompt = prompted->prompt, .content = prompted->content};
  if (std::holds_alternative<NoSpans>(options.spans)) {
    return PlanInput(model.manifest, tokens, options.plan, *model.rotary_tables);
  }
  if (std::holds_alternative<SequenceTokens>(options.spans)) return PlanSequenceTokens(model, tokens, options);
  const absl::StatusOr<std::vector<Range>> spans = SpansOfText(text, input, *prompted, options.spans);
  if (!spans.ok()) return spans.status();
  return PlanWithSpans(model, tokens, *spans, options);
}

absl::StatusOr<std::vector<int32_t>> CheckedIds(const Model& model, std::span<const uint32_t> ids) {
  std::vector<int32_t> checked;
  checked.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= static_cast<uint32_t>(model.manifest.vocabulary_size)) {
      return TokenIdOutOfRange(i, ids[i], model.manifest.vocabulary_size);
    }
    checked.push_back(static_cast<int32_t>(ids[i]));
  }
  return checked;
}

absl::StatusOr<std::vector<Range>> SpansOfIds(const Input& input, int64_t content, const SpanRequest& request) {
  if (const auto* every = std::get_if<EveryTokens>(&request)) return SpansOfEvery(every->tokens, content);
  if (std::holds_alternative<SentenceSpans>(request)) return SentencesNeedText();
  return CheckedTokenRanges(input.ranges, content);
}

absl::StatusOr<Plan> PrepareIds(const Model& model, const TokenIds& ids, const Input& input,
                                const InputOptions& options) {
  const int64_t max_tokens = options.plan.limits.max_tokens;
  if (const auto count = static_cast<int64_t>(ids.ids.size()); count > max_tokens) {
    return InputBeyondLimit(count, max_tokens);
  }
  const absl::StatusOr<std::vector<int32_t>> content = CheckedIds(model, ids.ids);
  if (!content.ok()) return content.status();
  std::vector<int32_t> prompt;
  if (!ids.complete && !options.prompt.empty()) {
    absl::StatusOr<TokenizedText> tokens = model.tokenizer->Tokenize(options.prompt);
    if (!tokens.ok()) return tokens.status();
    prompt = std::move(tokens->ids);
  }
  const InputTokens tokens{.prompt = prompt, .content = *content, .complete = ids.complete};
  if (std::holds_alternative<NoSpans>(options.spans)) {
    return PlanInput(model.manifest, tokens, options.plan, *model.rotary_tables);
  }
  if (std::holds_alternative<SequenceTokens>(options.spans)) return PlanSequenceTokens(model, tokens, options);
  const absl::StatusOr<std::vector<Range>> spans =
      SpansOfIds(input, static_cast<int64_t>(content->size()), options.spans);
  if (!spans.ok()) return spans.status();
  return PlanWithSpans(model, tokens, *spans, options);
}

// Cut, then normalised.
absl::StatusOr<std::vector<float>> FinishVector(std::span<const float> row, const VectorOptions& options) {
  const std::span<const float> kept = row.first(static_cast<size_t>(options.dimensions));
  std::vector<float> vector(kept.begin(), kept.end());
  if (options.normalize) {
    if (const absl::Status status = Normalize(vector); !status.ok()) return status;
  } else if (!AllFinite(vector)) {
    return UnusableVector();
  }
  return vector;
}

Range WholeContent(const Plan& plan) {
  return {plan.sequences.front().content.start, plan.sequences.back().content.end};
}

std::vector<float> AggregateWindows(const Plan& plan, std::span<const std::vector<float>> rows,
                                    Aggregation aggregation) {
  std::vector<int32_t> weights;
  weights.reserve(plan.sequences.size());
  for (const PlannedSequence& planned : plan.sequences) weights.push_back(planned.tokens);
  return Aggregate(aggregation, rows, weights);
}

}  // namespace

std::vector<std::string> OutputsOf(const ModelManifest& model) {
  std::vector<std::string> outputs;
  if (model.pooling != Pooling::kNone) outputs = {"ONE_VECTOR", "WINDOW_VECTORS", "SPAN_VECTORS"};
  if (model.sparse_head != SparseHeadKind::kNone) outputs.emplace_back("SPARSE");
  if (model.token_vectors.has_value()) outputs.emplace_back("TOKEN_VECTORS");
  return outputs;
}

absl::Status CheckOutput(const ModelManifest& model, const std::string& output) {
  const std::vector<std::string> available = OutputsOf(model);
  if (std::ranges::find(available, output) != available.end()) return absl::OkStatus();
  return OutputNotAvailable(output, model.name, available);
}

absl::StatusOr<Plan> PrepareInput(const Model& model, const Input& input, const InputOptions& options) {
  if (const auto* text = std::get_if<std::string_view>(&input.content)) {
    return PrepareText(model, *text, input, options);
  }
  return PrepareIds(model, std::get<TokenIds>(input.content), input, options);
}

namespace {

// The first vector, which the paper's code protects, and the mean of each cluster of the others.
absl::StatusOr<std::vector<OutputVector>> PoolVectors(std::span<OutputVector> vectors, const VectorOptions& options) {
  const std::span<OutputVector> others = vectors.subspan(1);
  const std::vector<std::span<const float>> views = [others] {
    std::vector<std::span<const float>> values;
    for (const OutputVector& vector : others) values.emplace_back(vector.values);
    return values;
  }();
  const std::vector<int32_t> labels = PooledTokens(views, options.token_pooling);
  std::vector<OutputVector> pooled(1, std::move(vectors.front()));
  std::vector<std::vector<double>> sums;
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < others.size(); ++i) {
    const auto label = static_cast<size_t>(labels[i]);
    if (label == sums.size()) {  // Clusters are numbered by their first vectors.
      sums.emplace_back(others[i].values.size());
      sizes.push_back(0);
      pooled.push_back({.content = others[i].content});
    }
    for (size_t c = 0; c < sums[label].size(); ++c) sums[label][c] += others[i].values[c];
    ++sizes[label];
    pooled[label + 1].content.end = std::max(pooled[label + 1].content.end, others[i].content.end);
  }
  for (size_t k = 0; k < sums.size(); ++k) {
    std::vector<float>& values = pooled[k + 1].values;
    for (const double sum : sums[k]) values.push_back(static_cast<float>(sum / static_cast<double>(sizes[k])));
    if (!options.normalize) continue;
    if (const absl::Status status = Normalize(values); !status.ok()) return status;
  }
  return pooled;
}

// The mean over a span's tokens from the means over its parts. A part that is the whole span is its vector to the bit.
std::vector<std::vector<float>> JoinParts(const Plan& plan, std::span<const std::vector<float>> rows) {
  std::vector<std::vector<float>> joined(plan.spans.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto [span, tokens] = plan.parts[r];
    std::vector<float>& sum = joined[static_cast<size_t>(span)];
    const int32_t all = plan.spans[static_cast<size_t>(span)].size();
    const float share = static_cast<float>(tokens) / static_cast<float>(all);
    if (sum.empty()) sum.resize(rows[r].size());
    for (size_t c = 0; c < sum.size(); ++c) sum[c] += share * rows[r][c];
  }
  return joined;
}

}  // namespace

int64_t FinishedVectors(const Plan& plan, const VectorOptions& options) {
  const int64_t vectors = plan.vectors();
  if (options.token_pooling == 1 || vectors == 0) return vectors;
  return 1 + PooledCount(vectors - 1, options.token_pooling);
}

absl::StatusOr<std::vector<OutputVector>> FinishVectors(const Plan& plan, std::span<const std::vector<float>> rows,
                                                        const VectorOptions& options) {
  std::vector<std::vector<float>> joined;
  if (!plan.parts.empty()) {
    joined = JoinParts(plan, rows);
    rows = joined;
  }
  std::vector<OutputVector> vectors;
  const auto add = [&](std::span<const float> row, Range content) {
    absl::StatusOr<std::vector<float>> vector = FinishVector(row, options);
    if (vector.ok()) vectors.push_back({*std::move(vector), content});
    return vector.status();
  };
  if (plan.spans.empty() && !options.vector_per_window) {
    const absl::Status status = add(AggregateWindows(plan, rows, options.aggregation), WholeContent(plan));
    if (!status.ok()) return status;
    return vectors;
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const absl::Status status = add(rows[i], plan.spans.empty() ? plan.sequences[i].content : plan.spans[i]);
    if (!status.ok()) return status;
  }
  if (options.token_pooling > 1) return PoolVectors(vectors, options);
  return vectors;
}

absl::StatusOr<std::vector<OutputVector>> FinishSparse(const Plan& plan, std::span<const SparseVector> rows,
                                                       std::optional<int64_t> max_terms) {
  SparseVector merged = Combine(rows, SparseSum::kMax);
  if (!AllFinite(merged.values)) return UnusableVector();
  if (max_terms.has_value()) KeepLargest(*max_terms, merged);
  std::vector<OutputVector> vectors;
  vectors.push_back(
      {.values = std::move(merged.values), .content = WholeContent(plan), .indices = std::move(merged.indices)});
  return vectors;
}

}  // namespace longembed
