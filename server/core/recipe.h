// The recipe of a vector: vectors with equal recipes are comparable. Different ones may be, too: truncation, for
// example, changes the recipe of texts that it does not cut. Stateless: any thread.
#ifndef LONGEMBED_SERVER_CORE_RECIPE_H_
#define LONGEMBED_SERVER_CORE_RECIPE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "model/encoder/precision.h"
#include "model/manifest/manifest.h"
#include "model/plan/planner.h"

namespace longembed {

// Changes whenever the same request is planned differently than before.
inline constexpr int kPlanVersion = 2;

// Everything that shapes all vectors of a call. Excludes what varies by text, and the prompt: queries and documents
// differ in it and are compared.
struct RecipeOptions {
  Extension extension;  // With the numbers that were asked for; what was left to the text is "adaptive".
  Truncate truncate = Truncate::kNone;
  std::optional<int64_t> max_tokens;  // That truncation leaves of a text, whatever its extension.
  int dimensions = 0;
  bool normalize = true;
  bool sparse = false;                        // Sparse vectors, of which dimensions and normalize say nothing.
  std::optional<int64_t> max_terms;           // Of them.
  int64_t token_pooling = 1;                  // Of token vectors: queries too, which it leaves as they are.
  std::string encoding;                       // "FLOAT32", ...
  Precision precision = Precision::kFloat32;  // That the model runs in.
};

// 32 hex digits of the SHA-256 over canonical JSON (sorted keys, no blanks).
std::string Recipe(const ModelManifest& model, const RecipeOptions& options);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_RECIPE_H_
