// The two halves of an embedding around the encoder: an input to its plan before, the encoder's vectors to the caller's
// after. A server runs them on its own threads with a batch scheduler between; Embedder (embedder.h) runs them in a
// row. Stateless: any thread.
#ifndef LONGEMBED_MODEL_EMBED_PIPELINE_H_
#define LONGEMBED_MODEL_EMBED_PIPELINE_H_

#include <cstdint>
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
#include "model/vector/aggregation.h"
#include "model/vector/sparse.h"
#include "model/vector/vector.h"

namespace longembed {

struct TokenIds {
  std::span<const uint32_t> ids;
  bool complete = false;  // Special tokens and prompt are in the ids.
};

// Text or token ids are views: the viewed data must outlive the call only.
struct Input {
  Input(std::string_view text) : content(text) {}  // NOLINT(google-explicit-constructor): an input is its text.
  Input(const TokenIds& ids) : content(ids) {}     // NOLINT(google-explicit-constructor)

  std::variant<std::string_view, TokenIds> content;
  std::vector<Range> ranges;  // GivenRanges: code points of the text, or tokens of the ids.
};

// The values of longembed.v1.EmbedOptions.Output that a model gives, by their names; first the one of requests that
// name none.
std::vector<std::string> OutputsOf(const ModelManifest& model);

// Whether the model gives this one. Errors (INVALID_ARGUMENT): OUTPUT_NOT_AVAILABLE.
absl::Status CheckOutput(const ModelManifest& model, const std::string& output);

// Options for turning an input into sequences. One instance serves all inputs of a request.
struct InputOptions {
  std::string prompt;  // As ResolvePrompt gives it.
  PlanOptions plan;    // Its extension passed CheckExtension.
  SpanRequest spans;
  bool count_exactly = false;  // Count all that truncation cuts, however long (Plan::estimated).
};

// Tokenizes and plans one input. Errors (INVALID_ARGUMENT): those of TokenizeWithPrompt, PlanInput and spans.h,
// TOKEN_ID_OUT_OF_RANGE, SENTENCES_NEED_TEXT; their fields are relative to the input.
absl::StatusOr<Plan> PrepareInput(const Model& model, const Input& input, const InputOptions& options);

// About how many bytes of its text PrepareInput tokenizes: truncation leaves most of a long one alone.
int64_t BytesToTokenize(const Model& model, const Input& input, const InputOptions& options);

struct VectorOptions {
  int dimensions = 0;  // As ResolveDimensions gives it.
  bool normalize = true;
  Windows windows;                 // Of these the aggregation with its numbers, and `vectors`.
  bool vector_per_window = false;  // Instead of aggregating; of groups of windows where windows.vectors is there.
  int64_t token_pooling = 1;       // Of a document's token vectors: so many to one vector, save the first.
};

struct OutputVector {
  std::vector<float> values;
  Range content;                 // The content tokens that it represents.
  std::vector<int32_t> indices;  // Of a sparse vector: which components `values` are. Else empty.
};

// The vectors that the caller gets: one; one a window or group of windows; or one a span, when the plan has spans.
// `rows` are the encoder's vectors of the plan's spans, or of their parts, in order. Windows are aggregated, then each
// vector is cut and normalized. Errors: UNUSABLE_VECTOR.
absl::StatusOr<std::vector<OutputVector>> FinishVectors(const Plan& plan, std::span<const std::vector<float>> rows,
                                                        const VectorOptions& options);

// Returns the number of vectors that FinishVectors makes.
int64_t CountVectors(const Plan& plan, const VectorOptions& options);

// The content tokens that each vector of FinishVectors stands for.
std::vector<Range> RangesOfVectors(const Plan& plan, const VectorOptions& options);

// The one sparse vector that the caller gets: the maximum over the plan's windows, of which `rows` are the vectors, in
// order; of it the `max_terms` largest weights. It may have none. Errors: UNUSABLE_VECTOR.
absl::StatusOr<std::vector<OutputVector>> FinishSparse(const Plan& plan, std::span<const SparseVector> rows,
                                                       std::optional<int64_t> max_terms);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_PIPELINE_H_
