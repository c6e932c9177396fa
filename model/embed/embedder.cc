#include "model/embed/embedder.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

// Which sequences go together: neighbours in order of length, up to the budget.
std::vector<std::vector<size_t>> FormBatches(const std::vector<Sequence>& sequences, int max_batch_tokens) {
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sequences[a].size() < sequences[b].size(); });
  std::vector<std::vector<size_t>> batches;
  int tokens = 0;
  for (const size_t i : order) {
    if (batches.empty() || tokens + sequences[i].size() > max_batch_tokens) {
      batches.emplace_back();
      tokens = 0;
    }
    batches.back().push_back(i);
    tokens += sequences[i].size();
  }
  return batches;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<float>>> Embedder::Embed(std::span<const std::string_view> texts,
                                                                const EmbedderOptions& options) const {
  const absl::StatusOr<std::string> prompt = ResolvePrompt(model_.manifest, options.prompt);
  if (!prompt.ok()) return prompt.status();
  const absl::StatusOr<int> dimensions = ResolveDimensions(options.dimensions, model_.manifest.trained_dimensions);
  if (!dimensions.ok()) return dimensions.status();

  std::vector<Sequence> sequences;
  sequences.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    absl::StatusOr<Plan> plan = PrepareInput(model_, texts[i], {.prompt = *prompt, .plan = options.plan});
    if (!plan.ok()) return AtField(plan.status(), absl::StrCat("inputs[", i, "]"));
    sequences.push_back(std::move(plan->sequences.front().sequence));
  }

  std::vector<std::vector<float>> vectors(texts.size());
  for (const std::vector<size_t>& batch : FormBatches(sequences, options.max_batch_tokens)) {
    std::vector<const Sequence*> members;
    for (const size_t i : batch) members.push_back(&sequences[i]);
    const absl::StatusOr<VectorBlock> block = encoder_.Encode(Pack(members), [] { return false; });
    if (!block.ok()) return block.status();
    for (size_t row = 0; row < batch.size(); ++row) {
      absl::StatusOr<std::vector<float>> vector =
          FinishVector(block->row(static_cast<int>(row)), {.dimensions = *dimensions, .normalize = options.normalize});
      if (!vector.ok()) return vector.status();
      vectors[batch[row]] = *std::move(vector);
    }
  }
  return vectors;
}

}  // namespace longembed
