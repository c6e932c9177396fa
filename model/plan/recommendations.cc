#include "model/plan/recommendations.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/plan/extension_json.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Parses one of a manifest's recommendations. Errors (INVALID_ARGUMENT): those of ParseExtension and CheckExtension.
absl::StatusOr<std::optional<Extension>> ReadRecommendation(const std::string& json, const ModelManifest& model) {
  if (json.empty()) return std::nullopt;
  absl::StatusOr<Extension> extension = ParseExtension(json);
  if (!extension.ok()) return extension.status();
  RETURN_IF_ERROR(CheckExtension(model, *extension));
  return *std::move(extension);
}

}  // namespace

absl::StatusOr<Recommendations> RecommendationsOf(const ModelManifest& manifest) {
  const auto bad = [&manifest](const char* key, absl::string_view what) {
    return ModelDirectoryError(manifest.name, absl::StrCat(key, " of its manifest: ", what));
  };
  auto one_vector = ReadRecommendation(manifest.recommended_extension, manifest);
  if (!one_vector.ok()) return bad("recommended_extension", one_vector.status().message());
  if (one_vector->has_value() && (*one_vector)->windows.has_value() && (*one_vector)->windows->vectors.has_value()) {
    return bad("recommended_extension", "has windows.vectors, which goes with several vectors a text; leave it out");
  }
  constexpr char kMultiVector[] = "recommended_multi_vector_extension";
  auto window_vectors = ReadRecommendation(manifest.recommended_multi_vector_extension, manifest);
  if (!window_vectors.ok()) return bad(kMultiVector, window_vectors.status().message());
  if (window_vectors->has_value() && !(*window_vectors)->windows.has_value()) {
    return bad(kMultiVector, "has no windows, but it is for one vector per window; add \"windows\"");
  }
  return Recommendations{*std::move(one_vector), *std::move(window_vectors)};
}

}  // namespace longembed
