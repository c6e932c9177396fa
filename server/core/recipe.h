// The recipe of a vector. Vectors with equal recipes are comparable. Vectors with different recipes may be comparable,
// too: truncation, for example, changes the recipe even of texts that it does not cut. Stateless functions that any
// thread can call.
#ifndef LONGEMBED_SERVER_CORE_RECIPE_H_
#define LONGEMBED_SERVER_CORE_RECIPE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "model/encoder/precision.h"
#include "model/manifest/manifest.h"
#include "model/plan/planner.h"

namespace longembed {

// Must change whenever the same request is planned differently than before.
inline constexpr int kPlanVersion = 2;

// Everything that shapes all vectors of a call. Does not include what varies by text, or the prompt, because queries
// and documents differ in it and are compared.
struct RecipeOptions {
  Extension extension;  // With the requested numbers; numbers that depend on the text are "adaptive".
  Truncate truncate = Truncate::kNone;
  std::optional<int64_t> max_tokens;  // Limit of truncation, with any extension.
  // The server's limit for a sequence, if texts may be cut there (LimitThatCuts).
  std::optional<int64_t> max_sequence_tokens;
  int dimensions = 0;
  bool normalize = true;
  bool spans = false;                         // Vectors of spans, which are means, however the model pools.
  bool sparse = false;                        // Sparse vectors, for which dimensions and normalize say nothing.
  std::optional<int64_t> max_terms;           // For sparse vectors.
  int64_t token_pooling = 1;                  // For token vectors. Also set for queries, which it does not change.
  std::string encoding;                       // "FLOAT32", ...
  Precision precision = Precision::kFloat32;  // The precision in which the model runs.
};

// Returns limits.max_sequence_tokens if texts may be cut there: by truncation, or into windows although they are within
// the trained window. Returns nullopt if max_tokens, the model or the extension cuts earlier, or if nothing is cut.
std::optional<int64_t> LimitThatCuts(const ModelManifest& model, const PlanOptions& options);

// Returns 32 hex digits of the SHA-256 over canonical JSON (sorted keys, no blanks).
std::string Recipe(const ModelManifest& model, const RecipeOptions& options);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_RECIPE_H_
