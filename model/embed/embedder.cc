#include "model/embed/embedder.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

// Which sequences go together: neighbours in order of length, up to the budget.
std::vector<std::vector<size_t>> FormBatches(const std::vector<const Sequence*>& sequences, int max_batch_tokens) {
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return sequences[i]->size(); });
  std::vector<std::vector<size_t>> batches;
  int tokens = 0;
  for (const size_t i : order) {
    if (batches.empty() || tokens + sequences[i]->size() > max_batch_tokens) {
      batches.emplace_back();
      tokens = 0;
    }
    batches.back().push_back(i);
    tokens += sequences[i]->size();
  }
  return batches;
}

// [sequence] -> its encoder rows, one a span.
using Rows = std::vector<std::vector<std::vector<float>>>;

absl::StatusOr<Rows> EncodeAll(Encoder& encoder, Team& team, const std::vector<const Sequence*>& sequences,
                               int max_batch_tokens) {
  Rows rows(sequences.size());
  Team::Leader leader(team);
  for (const std::vector<size_t>& batch : FormBatches(sequences, max_batch_tokens)) {
    std::vector<const Sequence*> members;
    for (const size_t i : batch) members.push_back(sequences[i]);
    const absl::StatusOr<VectorBlock> block = encoder.Encode(Pack(members), leader, [] { return false; });
    if (!block.ok()) return block.status();
    int row = 0;
    for (const size_t i : batch) {
      for (size_t span = 0; span < sequences[i]->spans.size(); ++span, ++row) {
        rows[i].emplace_back(block->row(row).begin(), block->row(row).end());
      }
    }
  }
  return rows;
}

absl::StatusOr<std::vector<Plan>> PrepareAll(const Model& model, std::span<const Input> inputs,
                                             const InputOptions& options) {
  std::vector<Plan> plans;
  plans.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    absl::StatusOr<Plan> plan = PrepareInput(model, inputs[i], options);
    if (!plan.ok()) return AtField(plan.status(), absl::StrCat("inputs[", i, "]"));
    plans.push_back(*std::move(plan));
  }
  return plans;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<OutputVector>>> Embedder::Embed(std::span<const Input> inputs,
                                                                       const EmbedderOptions& options) const {
  const absl::StatusOr<std::string> prompt = ResolvePrompt(model_.manifest, options.prompt);
  if (!prompt.ok()) return prompt.status();
  const absl::StatusOr<int> dimensions = ResolveDimensions(options.dimensions, model_.manifest.trained_dimensions);
  if (!dimensions.ok()) return dimensions.status();
  const Extension& extension = options.plan.extension;
  if (const absl::Status status = CheckExtension(model_.manifest, extension); !status.ok()) return status;
  const absl::StatusOr<std::vector<Plan>> plans =
      PrepareAll(model_, inputs, {.prompt = *prompt, .plan = options.plan, .spans = options.spans});
  if (!plans.ok()) return plans.status();

  std::vector<const Sequence*> sequences;
  for (const Plan& plan : *plans) {
    for (const PlannedSequence& planned : plan.sequences) sequences.push_back(&planned.sequence);
  }
  const absl::StatusOr<Rows> rows = EncodeAll(encoder_, team_, sequences, options.max_batch_tokens);
  if (!rows.ok()) return rows.status();

  const VectorOptions vector_options{
      .dimensions = *dimensions,
      .normalize = options.normalize,
      .aggregation = extension.windows.has_value() ? extension.windows->aggregation : Aggregation::kMean,
      .vector_per_window = options.vector_per_window};
  std::vector<std::vector<OutputVector>> results;
  size_t next = 0;
  for (const Plan& plan : *plans) {
    std::vector<std::vector<float>> own;
    for (size_t i = 0; i < plan.sequences.size(); ++i, ++next) {
      own.insert(own.end(), (*rows)[next].begin(), (*rows)[next].end());
    }
    absl::StatusOr<std::vector<OutputVector>> vectors = FinishVectors(plan, own, vector_options);
    if (!vectors.ok()) return AtField(vectors.status(), absl::StrCat("inputs[", results.size(), "]"));
    results.push_back(*std::move(vectors));
  }
  return results;
}

}  // namespace longembed
