#include "model/embed/pipeline.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "model/errors/errors.h"
#include "model/plan/windows.h"
#include "model/text/prompt.h"
#include "model/vector/token_pooling.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Plans an input with spans. If truncation removes a span that the client named (GivenRanges), that is an error; other
// spans are dropped.
absl::StatusOr<Plan> PlanWithSpans(const Model& model, InputTokens tokens, const std::vector<Range>& spans,
                                   const InputOptions& options) {
  const SpanChoice choice{.ranges = spans, .required = std::holds_alternative<GivenRanges>(options.spans)};
  tokens.spans = &choice;
  return PlanInput(model.manifest, tokens, options.plan, *model.rotary_tables);
}

// Adds spans to the first window for the tokens before the content, and to the last window for those after it. The plan
// already has one span per content token, each in one window and in order, so that afterwards row i is the vector of
// span i.
void AddTokensAround(const ModelManifest& model, const InputTokens& tokens, Range content, Plan& plan) {
  const std::vector<Range> before = SpansOfEvery(1, std::ssize(model.special_prefix) + std::ssize(tokens.prompt));
  std::vector<Range> after = SpansOfEvery(1, std::ssize(model.special_suffix));
  Sequence& first = plan.sequences.front().sequence;
  Sequence& last = plan.sequences.back().sequence;
  const auto shift = static_cast<int32_t>(last.size() - std::ssize(after));
  for (Range& token : after) token = {token.start + shift, token.end + shift};
  first.spans.insert(first.spans.begin(), before.begin(), before.end());
  last.spans.insert(last.spans.end(), after.begin(), after.end());
  plan.spans.insert(plan.spans.begin(), before.size(), {content.start, content.start});
  plan.spans.insert(plan.spans.end(), after.size(), {content.end, content.end});
  plan.parts.clear();
}

// Plans a text that is cut into windows. Each token's vector comes from exactly one of them.
absl::StatusOr<Plan> PlanTokensOfWindows(const Model& model, const InputTokens& tokens, Range content,
                                         const InputOptions& options) {
  std::vector<Range> each = SpansOfEvery(1, content.size());
  for (Range& token : each) token = {token.start + content.start, token.end + content.start};
  absl::StatusOr<Plan> plan = PlanWithSpans(model, tokens, each, options);
  if (plan.ok()) AddTokensAround(model.manifest, tokens, content, *plan);
  return plan;
}

// Plans an input that gets a vector for each token, special tokens and prompt included.
absl::StatusOr<Plan> PlanSequenceTokens(const Model& model, const InputTokens& tokens, const InputOptions& options) {
  absl::StatusOr<Plan> plan = PlanInput(model.manifest, tokens, options.plan, *model.rotary_tables);
  if (!plan.ok()) return plan.status();
  if (plan->sequences.size() != 1) {
    const Range content{plan->sequences.front().content.start, plan->sequences.back().content.end};
    return PlanTokensOfWindows(model, tokens, content, options);
  }
  Sequence& sequence = plan->sequences.front().sequence;
  std::vector<Range> each = SpansOfEvery(1, sequence.size());
  sequence.spans = each;
  // Every row becomes a vector, while the plan expected only that of a pooled special token.
  if (sequence.calibration.basket > 0) {
    sequence.calibration.rows = {0, sequence.size()};
    sequence.calibration.apart = -1;
  }
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

// Returns whether the spans allow a plan from a part of the text's tokens. Spans of the text need all tokens.
bool NeedsOnlyPartOfText(const InputOptions& options) {
  return std::holds_alternative<NoSpans>(options.spans) || std::holds_alternative<SequenceTokens>(options.spans);
}

// Returns which tokens the plan depends on, or nullopt if all.
std::optional<NeededTokens> NeededOf(const Model& model, const InputOptions& options) {
  const std::optional<int64_t> needed = TokensNeededForPlan(model.manifest, options.plan);
  if (!needed.has_value() || !NeedsOnlyPartOfText(options)) return std::nullopt;
  // The planner refuses an input that exceeds the server's limit, so one token more than the limit is enough.
  const int64_t max = std::min(options.plan.limits.max_tokens, Tokenizer::kEverything - 1) + 1;
  return NeededTokens{.count = std::min(*needed, max),
                      .from_end = options.plan.truncate == Truncate::kStart,
                      .count_rest = options.count_exactly};
}

absl::StatusOr<PromptedTokens> TokenizeText(const Model& model, std::string_view text, const InputOptions& options,
                                            const HoldMemory& hold) {
  if (const std::optional<NeededTokens> needed = NeededOf(model, options); needed.has_value()) {
    return TokenizePart(*model.tokenizer, options.prompt, text, *needed, hold);
  }
  return TokenizeWithPrompt(*model.tokenizer, options.prompt, text, options.plan.limits.max_tokens, hold);
}

absl::StatusOr<Plan> PrepareText(const Model& model, std::string_view text, const Input& input,
                                 const InputOptions& options, const HoldMemory& hold) {
  const absl::StatusOr<PromptedTokens> prompted = TokenizeText(model, text, options, hold);
  if (!prompted.ok()) return prompted.status();
  const InputTokens tokens{.prompt = prompted->prompt,
                           .content = prompted->content,
                           .before = prompted->before,
                           .after = prompted->after,
                           .estimated = prompted->estimated};
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
                                const InputOptions& options, const HoldMemory& hold) {
  const int64_t max_tokens = options.plan.limits.max_tokens;
  const bool takes_parts = NeededOf(model, options).has_value();
  if (const auto count = static_cast<int64_t>(ids.ids.size()); count > max_tokens && !takes_parts) {
    return InputBeyondLimit(count, max_tokens);
  }
  const absl::StatusOr<std::vector<int32_t>> content = CheckedIds(model, ids.ids);
  if (!content.ok()) return content.status();
  std::vector<int32_t> prompt;
  if (!ids.complete && !options.prompt.empty()) {
    absl::StatusOr<TokenizedText> tokens = model.tokenizer->Tokenize(options.prompt, Tokenizer::kEverything, hold);
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

// Checks that the encoding of the answer can represent the vector. Errors: UNUSABLE_VECTOR, COMPONENT_BEYOND_ENCODING.
absl::Status CheckComponents(std::span<const float> vector, float beyond_encoding) {
  if (!AllFinite(vector)) return UnusableVector();
  const auto beyond = std::ranges::find_if(vector, [&](float x) { return std::abs(x) >= beyond_encoding; });
  return beyond == vector.end() ? absl::OkStatus() : ComponentBeyondEncoding(*beyond, beyond_encoding);
}

// Truncates a row to the requested dimensions and normalizes it if requested. Errors: those of CheckComponents.
absl::StatusOr<std::vector<float>> FinishVector(std::span<const float> row, const VectorOptions& options) {
  const std::span<const float> kept = row.first(static_cast<size_t>(options.dimensions));
  std::vector<float> vector(kept.begin(), kept.end());
  if (options.normalize) {
    RETURN_IF_ERROR(Normalize(vector));
  } else {
    RETURN_IF_ERROR(CheckComponents(vector, options.beyond_encoding));
  }
  return vector;
}

// Returns groups of neighboring windows. Each group gives one vector.
std::vector<Range> GroupsOfWindows(const Plan& plan, const VectorOptions& options) {
  return GroupNeighbors(static_cast<int64_t>(plan.sequences.size()), CountVectors(plan, options));
}

Range ContentOf(const Plan& plan, Range windows) {
  const auto at = [&plan](int32_t i) { return plan.sequences[static_cast<size_t>(i)].content; };
  return {at(windows.start).start, at(windows.end - 1).end};
}

std::vector<float> AggregateGroup(const Plan& plan, std::span<const std::vector<float>> rows, Range group,
                                  const Windows& windows) {
  std::vector<int32_t> weights;
  for (int32_t i = group.start; i < group.end; ++i) weights.push_back(plan.sequences[static_cast<size_t>(i)].tokens);
  return Aggregate(windows, rows.subspan(static_cast<size_t>(group.start), weights.size()), weights);
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

absl::StatusOr<Plan> PrepareInput(const Model& model, const Input& input, const InputOptions& options,
                                  const HoldMemory& hold) {
  if (const auto* text = std::get_if<std::string_view>(&input.content)) {
    return PrepareText(model, *text, input, options, hold);
  }
  return PrepareIds(model, std::get<TokenIds>(input.content), input, options, hold);
}

int64_t BytesToTokenize(const Model& model, const Input& input, const InputOptions& options) {
  const auto prompt = static_cast<int64_t>(options.prompt.size());
  if (const auto* ids = std::get_if<TokenIds>(&input.content)) return ids->complete ? 0 : prompt;
  const auto bytes = static_cast<int64_t>(std::get<std::string_view>(input.content).size());
  const std::optional<NeededTokens> needed = NeededOf(model, options);
  return prompt + (needed.has_value() ? BytesOfPart(*model.tokenizer, bytes, *needed) : bytes);
}

namespace {

// Returns the first vector, and the mean of each cluster of the others. The first vector is never pooled, as in the
// published code of token pooling (arXiv 2409.14683).
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
    Range& content = pooled[label + 1].content;  // Windows may overlap, so a later vector may have an earlier token.
    content = {std::min(content.start, others[i].content.start), std::max(content.end, others[i].content.end)};
  }
  for (size_t k = 0; k < sums.size(); ++k) {
    std::vector<float>& values = pooled[k + 1].values;
    for (const double sum : sums[k]) values.push_back(static_cast<float>(sum / static_cast<double>(sizes[k])));
    if (!options.normalize) continue;
    RETURN_IF_ERROR(Normalize(values));
  }
  return pooled;
}

// Returns the mean over each span's tokens, computed in double from the means over its parts. If a span has one part,
// its vector is bitwise equal to the row.
std::vector<std::vector<float>> JoinParts(const Plan& plan, std::span<const std::vector<float>> rows) {
  std::vector<size_t> order(rows.size());  // The rows of span 0, then those of span 1, and so on.
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&plan](size_t r) { return plan.parts[r].span; });
  std::vector<std::vector<float>> joined(plan.spans.size());
  std::vector<double> sum;
  for (size_t first = 0, next; first < order.size(); first = next) {
    const auto span = static_cast<size_t>(plan.parts[order[first]].span);
    sum.assign(rows[order[first]].size(), 0.0);
    for (next = first; next < order.size() && plan.parts[order[next]].span == static_cast<int32_t>(span); ++next) {
      const double share = double{1} * plan.parts[order[next]].tokens / plan.spans[span].size();
      const std::vector<float>& row = rows[order[next]];
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += share * row[c];
    }
    joined[span].assign(sum.begin(), sum.end());
  }
  return joined;
}

}  // namespace

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
  for (size_t i = 0; i < plan.spans.size(); ++i) {
    RETURN_IF_ERROR(add(rows[i], plan.spans[i]));
  }
  if (options.token_pooling > 1) return PoolVectors(vectors, options);
  if (!plan.spans.empty()) return vectors;
  for (const Range group : GroupsOfWindows(plan, options)) {
    RETURN_IF_ERROR(add(AggregateGroup(plan, rows, group, options.windows), ContentOf(plan, group)));
  }
  return vectors;
}

int64_t CountVectors(const Plan& plan, const VectorOptions& options) {
  if (!plan.spans.empty()) {
    const auto spans = std::ssize(plan.spans);
    return options.token_pooling == 1 ? spans : 1 + PooledCount(spans - 1, options.token_pooling);
  }
  const auto windows = static_cast<int64_t>(plan.sequences.size());
  return options.vector_per_window ? std::min(windows, options.windows.vectors.value_or(windows)) : 1;
}

std::vector<Range> RangesOfVectors(const Plan& plan, const VectorOptions& options) {
  if (!plan.spans.empty()) return plan.spans;
  std::vector<Range> ranges;
  for (const Range group : GroupsOfWindows(plan, options)) ranges.push_back(ContentOf(plan, group));
  return ranges;
}

absl::StatusOr<std::vector<OutputVector>> FinishSparse(const Plan& plan, std::span<const SparseVector> rows,
                                                       std::optional<int64_t> max_terms, float beyond_encoding) {
  SparseVector merged = Combine(rows, SparseSum::kMax);
  RETURN_IF_ERROR(CheckComponents(merged.values, beyond_encoding));
  if (max_terms.has_value()) KeepLargest(*max_terms, merged);
  std::vector<OutputVector> vectors;
  vectors.push_back({.values = std::move(merged.values),
                     .content = ContentOf(plan, {0, static_cast<int32_t>(plan.sequences.size())}),
                     .indices = std::move(merged.indices)});
  return vectors;
}

}  // namespace longembed
