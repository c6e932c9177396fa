// The extensions that a model's manifest recommends. Pure functions that any thread can call.
#ifndef LONGEMBED_MODEL_PLAN_RECOMMENDATIONS_H_
#define LONGEMBED_MODEL_PLAN_RECOMMENDATIONS_H_

#include <optional>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/plan/extension.h"

namespace longembed {

// The recommendations of a manifest. A field is unset if the manifest lacks its key.
struct Recommendations {
  std::optional<Extension> one_vector;
  std::optional<Extension> window_vectors;  // Has windows.
};

// Returns the manifest's recommendations. Errors: FAILED_PRECONDITION with the manifest's key if a value is not an
// extension in JSON, if the model does not support it, if the one-vector extension has windows.vectors, or if the
// window-vectors extension has no windows.
absl::StatusOr<Recommendations> RecommendationsOf(const ModelManifest& manifest);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_RECOMMENDATIONS_H_
