// The two halves of an embedding around the encoder: an input to its plan before, the encoder's vectors to the caller's
// after. A server runs them on its own threads with a batch scheduler between; Embedder (embedder.h) runs them in a
// row. Stateless: any thread.
#ifndef LONGEMBED_MODEL_EMBED_PIPELINE_H_
#define LONGEMBED_MODEL_EMBED_PIPELINE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/embed/model.h"
#include "model/plan/planner.h"
#include "model/vector/vector.h"

namespace longembed {

struct TokenIds {
  std::span<const uint32_t> ids;
  bool complete = false;  // Special tokens and prompt are in the ids.
};

// Views: what they show must outlive the call only.
using Input = std::variant<std::string_view, TokenIds>;

// What turns an input into sequences. One instance serves all inputs of a request.
struct InputOptions {
  std::string prompt;  // As ResolvePrompt gives it.
  PlanOptions plan;
};

// Tokenises and plans one input. Errors (INVALID_ARGUMENT): those of TokenizeWithPrompt and PlanInput,
// TOKEN_ID_OUT_OF_RANGE; their fields are relative to the input.
absl::StatusOr<Plan> PrepareInput(const Model& model, const Input& input, const InputOptions& options);

struct VectorOptions {
  int dimensions = 0;  // As ResolveDimensions gives it.
  bool normalize = true;
};

// The vector that the caller gets from the encoder's row: cut, then normalised. Errors: UNUSABLE_VECTOR.
absl::StatusOr<std::vector<float>> FinishVector(std::span<const float> row, const VectorOptions& options);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_PIPELINE_H_
