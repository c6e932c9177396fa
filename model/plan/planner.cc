#include "model/plan/planner.h"

#include <numeric>

#include "model/errors/errors.h"

namespace longembed {
namespace {

// The part of `content` tokens that stays when only `room` fit.
Range Kept(int64_t content, int64_t room, Truncate truncate) {
  const auto size = static_cast<int32_t>(content);
  const auto kept = static_cast<int32_t>(std::min(content, room));
  return truncate == Truncate::kStart ? Range{size - kept, size} : Range{0, kept};
}

// The tokens that are pooled into the sequence's one vector.
Range PooledSpan(Pooling pooling, int32_t tokens) {
  switch (pooling) {
    case Pooling::kMean:
      return {0, tokens};
    case Pooling::kCls:
      return {0, 1};
    case Pooling::kLast:
      return {tokens - 1, tokens};
  }
  return {0, tokens};
}

Sequence MakeSequence(const ModelManifest& model, const InputTokens& input, Range kept) {
  Sequence sequence;
  std::vector<int32_t>& tokens = sequence.tokens;
  const auto append = [&tokens](std::span<const int32_t> ids) { tokens.insert(tokens.end(), ids.begin(), ids.end()); };
  if (!input.complete) {
    append(model.special_prefix);
    append(input.prompt);
  }
  append(input.content.subspan(kept.start, kept.size()));
  if (!input.complete) append(model.special_suffix);

  sequence.positions.resize(tokens.size());
  std::iota(sequence.positions.begin(), sequence.positions.end(), 0.0f);
  sequence.spans = {PooledSpan(model.pooling, sequence.size())};
  return sequence;
}

}  // namespace

absl::StatusOr<Plan> PlanInput(const ModelManifest& model, const InputTokens& input, const PlanOptions& options) {
  if (input.content.empty()) return EmptyInput();
  const auto content = static_cast<int64_t>(input.content.size());
  const int64_t overhead =
      input.complete
          ? 0
          : static_cast<int64_t>(model.special_prefix.size() + input.prompt.size() + model.special_suffix.size());
  const int64_t capacity = model.plain_limit;
  if (overhead >= capacity) return PromptTooLong(overhead, capacity);
  if (overhead + content > capacity) {
    if (options.truncate == Truncate::kNone) return InputTooLong(overhead + content, capacity);
    if (input.complete) return CompleteIdsTooLong(content, capacity);
  }

  const Range kept = Kept(content, capacity - overhead, options.truncate);
  Plan plan;
  plan.sequences.push_back({.sequence = MakeSequence(model, input, kept), .content = kept});
  plan.tokens = plan.sequences.front().sequence.size();
  plan.truncated_tokens = content - kept.size();
  plan.capacity = capacity;
  return plan;
}

Cost EstimateCost(const ModelManifest& model, const Plan& plan) {
  Cost cost;
  for (const PlannedSequence& planned : plan.sequences) {
    const int64_t n = planned.sequence.size();
    cost.tokens += n;
    cost.attention_pairs += n * n;
  }
  // A multiply and an add per weight and token: QKV and output projections (4 h^2) and the two feed-forward layers (2 h
  // f). Attention: Q K^T and its product with V, h multiply-adds a pair each.
  const double h = model.hidden_size;
  const double linear = 2.0 * (4.0 * h * h + 2.0 * h * model.intermediate_size) * static_cast<double>(cost.tokens);
  const double attention = 4.0 * h * static_cast<double>(cost.attention_pairs);
  cost.gigaflops = model.layers * (linear + attention) * 1e-9;
  return cost;
}

}  // namespace longembed
