// The steps of embedding before and after the encoder: from an input to its plan, and from the encoder's vectors to
// those that the caller gets. A server runs them on its own threads with a batch scheduler in between; Embedder
// (embedder.h) runs them one after the other. Stateless functions that any thread can call.
#ifndef LONGEMBED_MODEL_EMBED_PIPELINE_H_
#define LONGEMBED_MODEL_EMBED_PIPELINE_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/embed/model.h"
#include "model/embed/spans.h"
#include "model/plan/planner.h"
#include "model/text/tokenizer.h"
#include "model/vector/aggregation.h"
#include "model/vector/sparse.h"
#include "model/vector/vector.h"

namespace longembed {

struct TokenIds {
  std::span<const uint32_t> ids;
  bool complete = false;  // The ids include special tokens and prompt.
};

// A text or token ids. Both are views; the viewed data must outlive the call.
struct Input {
  Input(std::string_view text) : content(text) {}  // NOLINT(google-explicit-constructor): an input is its text.
  Input(const TokenIds& ids) : content(ids) {}     // NOLINT(google-explicit-constructor)

  std::variant<std::string_view, TokenIds> content;
  std::vector<Range> ranges;  // For GivenRanges: ranges of code points of the text, or of ids.
};

// Returns the names in longembed.v1.EmbedOptions.Output of the outputs that a model gives. The first is the default of
// requests.
std::vector<std::string> OutputsOf(const ModelManifest& model);

// Checks that the model gives `output`. Errors (INVALID_ARGUMENT): OUTPUT_NOT_AVAILABLE.
absl::Status CheckOutput(const ModelManifest& model, const std::string& output);

// Options for turning an input into sequences. One instance serves all inputs of a request.
struct InputOptions {
  std::string prompt;  // Result of ResolvePrompt.
  PlanOptions plan;    // Its extension must have passed CheckExtension.
  SpanRequest spans;
  bool count_exactly = false;  // Never estimate the number of truncated tokens (Plan::estimated).
};

// Tokenizes and plans one input. `hold` is that of Tokenizer::Tokenize. Errors (INVALID_ARGUMENT, apart from those of
// `hold`): those of TokenizeWithPrompt, PlanInput and spans.h, TOKEN_ID_OUT_OF_RANGE, SENTENCES_NEED_TEXT. Their fields
// are relative to the input, or begin with "options.".
absl::StatusOr<Plan> PrepareInput(const Model& model, const Input& input, const InputOptions& options,
                                  const HoldMemory& hold = {});

// Returns approximately how many bytes of prompt and text PrepareInput tokenizes. With truncation, most of a long text
// is not tokenized.
int64_t BytesToTokenize(const Model& model, const Input& input, const InputOptions& options);

struct VectorOptions {
  int dimensions = 0;  // Result of ResolveDimensions.
  bool normalize = true;
  Windows windows;  // Only the aggregation, its parameters and `vectors` are used.
  // One vector per window instead of one per text, or one per group of windows if windows.vectors is set.
  bool vector_per_window = false;
  // Factor by which token pooling reduces the number of a document's token vectors, not counting the first. 1: no
  // pooling.
  int64_t token_pooling = 1;
  // Components of this magnitude or more do not fit the encoding of the answer (model/vector/encoding.h).
  float beyond_encoding = std::numeric_limits<float>::infinity();
};

struct OutputVector {
  std::vector<float> values;
  Range content;                 // Content tokens that the vector represents.
  std::vector<int32_t> indices;  // Sparse vectors: indexes of `values`. Otherwise empty.
};

// Returns the vectors that the caller gets: one per span if the plan has spans, else one per window or group of
// windows, or one in all (VectorOptions). `rows` are the encoder's vectors of the plan's spans, or of their parts, in
// order. Windows are aggregated first; then each vector is truncated and normalized. Errors: UNUSABLE_VECTOR,
// COMPONENT_BEYOND_ENCODING.
absl::StatusOr<std::vector<OutputVector>> FinishVectors(const Plan& plan, std::span<const std::vector<float>> rows,
                                                        const VectorOptions& options);

// Returns the number of vectors that FinishVectors returns.
int64_t CountVectors(const Plan& plan, const VectorOptions& options);

// Returns the content tokens that each vector of FinishVectors represents. REQUIRES: options.token_pooling is 1.
std::vector<Range> RangesOfVectors(const Plan& plan, const VectorOptions& options);

// Returns the one sparse vector that the caller gets. It is the maximum over `rows`, the vectors of the plan's windows
// in order, reduced to its `max_terms` largest weights. It may have no weights. Errors: those of
// FinishVectors.
absl::StatusOr<std::vector<OutputVector>> FinishSparse(const Plan& plan, std::span<const SparseVector> rows,
                                                       std::optional<int64_t> max_terms,
                                                       float beyond_encoding = std::numeric_limits<float>::infinity());

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_PIPELINE_H_
