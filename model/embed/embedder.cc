#include "model/embed/embedder.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/vector/token_pooling.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Forms batches of sequences of similar length, each of up to `max_batch_tokens` tokens. Returns the indexes of the
// sequences of each batch.
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

// The encoder's output for each sequence: one row per span, or its sparse vector.
struct Encoded {
  std::vector<std::vector<std::vector<float>>> rows;
  std::vector<SparseVector> sparse;
};

absl::StatusOr<Encoded> EncodeAll(Encoder& encoder, Team& team, const std::vector<const Sequence*>& sequences,
                                  int max_batch_tokens) {
  Encoded encoded{.rows = decltype(Encoded::rows)(sequences.size()),
                  .sparse = std::vector<SparseVector>(sequences.size())};
  Team::Leader leader(team);
  for (const std::vector<size_t>& batch : FormBatches(sequences, max_batch_tokens)) {
    std::vector<const Sequence*> members;
    for (const size_t i : batch) members.push_back(sequences[i]);
    absl::StatusOr<VectorBlock> block = encoder.Encode(Pack(members), leader, [] { return false; });
    if (!block.ok()) return block.status();
    int row = 0;
    auto sparse = block->sparse.begin();
    for (const size_t i : batch) {
      if (sequences[i]->sparse) {
        encoded.sparse[i] = std::move(*sparse++);
        continue;
      }
      for (size_t span = 0; span < sequences[i]->spans.size(); ++span, ++row) {
        encoded.rows[i].emplace_back(block->row(row).begin(), block->row(row).end());
      }
    }
  }
  return encoded;
}

const char* OutputNameOf(const EmbedderOptions& options) {
  if (options.plan.token_vectors != TokenVectors::kNone) return "TOKEN_VECTORS";
  return options.sparse ? "SPARSE" : "ONE_VECTOR";
}

// Checks that the output uses the options that are set.
absl::Status CheckUsed(const EmbedderOptions& options) {
  const bool tokens = options.plan.token_vectors != TokenVectors::kNone;
  const bool one_vector = !options.sparse && !tokens && std::holds_alternative<NoSpans>(options.spans);
  if (options.vector_per_window && !(one_vector && options.plan.extension.windows.has_value())) {
    return Misplaced("options.vector_per_window",
                     "options.plan.extension.windows, without sparse vectors, token vectors and spans");
  }
  if (options.sparse && options.dimensions.dimensions.has_value()) {
    return Misplaced("options.dimensions", "vectors without options.sparse");
  }
  if (options.plan.sparse && !options.sparse) return Misplaced("options.plan.sparse", "options.sparse");
  return absl::OkStatus();
}

// Checks that the model gives the output, and that the options are in range and go together.
absl::Status CheckOptions(const ModelManifest& model, const EmbedderOptions& options) {
  RETURN_IF_ERROR(CheckOutput(model, OutputNameOf(options)));
  const bool tokens = options.plan.token_vectors != TokenVectors::kNone;
  if (options.sparse && tokens) return Misplaced("options.sparse", "options.plan.token_vectors to be none");
  if (!std::holds_alternative<NoSpans>(options.spans) && (options.sparse || tokens)) {
    return Misplaced("options.spans", "pooled vectors, without options.sparse and options.plan.token_vectors");
  }
  RETURN_IF_ERROR(CheckUsed(options));
  if (const auto* every = std::get_if<EveryTokens>(&options.spans); every != nullptr && every->tokens < 1) {
    return EveryTokensTooFew(every->tokens);
  }
  if (options.max_terms.has_value()) {
    if (!options.sparse) return Misplaced("options.max_terms", "options.sparse");
    const int64_t max = model.vocabulary_size;
    if (*options.max_terms < 1 || *options.max_terms > max) return MaxTermsOutOfRange(*options.max_terms, max);
  }
  const int64_t factor = options.token_pooling;
  if (factor < 1 || factor > kTokensPooledTogether) return TokenPoolingOutOfRange(factor, kTokensPooledTogether);
  return factor == 1 || tokens ? absl::OkStatus() : Misplaced("options.token_pooling", "options.plan.token_vectors");
}

absl::StatusOr<std::vector<Plan>> PrepareAll(const Model& model, std::span<const Input> inputs,
                                             const InputOptions& options) {
  std::vector<Plan> plans;
  plans.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool ranges_used = inputs[i].ranges.empty() || std::holds_alternative<GivenRanges>(options.spans);
    absl::StatusOr<Plan> plan =
        ranges_used ? PrepareInput(model, inputs[i], options) : Misplaced("ranges", "options.spans to be GivenRanges");
    if (!plan.ok()) return AtField(plan.status(), absl::StrCat("inputs[", i, "]"));
    plans.push_back(*std::move(plan));
  }
  return plans;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<OutputVector>>> Embedder::Embed(std::span<const Input> inputs,
                                                                       const EmbedderOptions& options) const {
  const ModelManifest& manifest = model_.manifest;
  RETURN_IF_ERROR(CheckOptions(manifest, options));
  const absl::StatusOr<std::string> prompt = ResolvePrompt(manifest, options.prompt);
  if (!prompt.ok()) return prompt.status();
  const absl::StatusOr<int> dimensions = ResolveDimensions(options.dimensions, manifest.trained_dimensions);
  if (!dimensions.ok()) return dimensions.status();
  RETURN_IF_ERROR(CheckMaxTokens(options.plan.max_tokens));
  const Extension& extension = options.plan.extension;
  RETURN_IF_ERROR(CheckExtension(manifest, extension));
  const bool in_groups = extension.windows.has_value() && extension.windows->vectors.has_value();
  if (in_groups && !options.vector_per_window) {
    return Misplaced("options.plan.extension.windows.vectors", "options.vector_per_window");
  }
  InputOptions input_options{.prompt = *prompt, .plan = options.plan, .spans = options.spans};
  input_options.plan.sparse = options.sparse;
  const absl::StatusOr<std::vector<Plan>> plans = PrepareAll(model_, inputs, input_options);
  if (!plans.ok()) return plans.status();

  std::vector<const Sequence*> sequences;
  for (const Plan& plan : *plans) {
    for (const PlannedSequence& planned : plan.sequences) sequences.push_back(&planned.sequence);
  }
  const absl::StatusOr<Encoded> encoded = EncodeAll(encoder_, team_, sequences, options.max_batch_tokens);
  if (!encoded.ok()) return encoded.status();

  const VectorOptions vector_options{
      .dimensions = *dimensions,
      .normalize = options.normalize,
      .windows = extension.windows.value_or(Windows()),
      .vector_per_window = options.vector_per_window,
      .token_pooling = options.plan.token_vectors == TokenVectors::kDocument ? options.token_pooling : 1};
  std::vector<std::vector<OutputVector>> results;
  size_t next = 0;
  for (const Plan& plan : *plans) {
    const size_t first = std::exchange(next, next + plan.sequences.size());
    absl::StatusOr<std::vector<OutputVector>> vectors;
    if (options.sparse) {
      vectors = FinishSparse(plan, std::span(encoded->sparse).subspan(first, plan.sequences.size()), options.max_terms);
    } else {
      std::vector<std::vector<float>> own;
      for (size_t i = first; i < next; ++i) own.insert(own.end(), encoded->rows[i].begin(), encoded->rows[i].end());
      vectors = FinishVectors(plan, own, vector_options);
    }
    if (!vectors.ok()) return AtField(vectors.status(), absl::StrCat("inputs[", results.size(), "]"));
    results.push_back(*std::move(vectors));
  }
  return results;
}

}  // namespace longembed
