// The extensions that a model's manifest recommends. Pure functions: any thread.
#ifndef LONGEMBED_MODEL_PLAN_RECOMMENDATIONS_H_
#define LONGEMBED_MODEL_PLAN_RECOMMENDATIONS_H_

#include <optional>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/plan/extension.h"

namespace longembed {

// The recommendations of a manifest; unset where it lacks the key.
struct Recommendations {
  std::optional<Extension> one_vector;
  std::optional<Extension> window_vectors;  // Has windows.
};

// Errors: FAILED_PRECONDITION, with the manifest's key, when one is not the JSON of an extension, when the model
// cannot do it, or when the one for several vectors has no windows.
absl::StatusOr<Recommendations> RecommendationsOf(const ModelManifest& manifest);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_RECOMMENDATIONS_H_
