// longembed.v1.Extension to the planner's Extension, and what the planner made of it back. Pure functions: any thread.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_EXTENSION_CONVERTER_H_
#define LONGEMBED_SERVER_API_LONGEMBED_EXTENSION_CONVERTER_H_

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "longembed/v1/embedding.pb.h"
#include "model/manifest/manifest.h"
#include "model/plan/extension.h"
#include "model/plan/planner.h"

namespace longembed {

// Extensions of the server's config, by name.
using Profiles = std::map<std::string, v1::Extension>;

// The profiles from their JSON. Errors (INVALID_ARGUMENT): no JSON of longembed.v1.Extension, a profile that refers to
// another one, two positions methods.
absl::StatusOr<Profiles> ParseProfiles(const std::map<std::string, std::string>& json);

// The names of those that a model can do.
std::vector<std::string> ProfilesOf(const ModelManifest& model, const Profiles& profiles);

// That each can be done by one of the models. Errors (INVALID_ARGUMENT): names the profile, and why the first model
// refuses it.
absl::Status CheckProfiles(const Profiles& profiles, std::span<const ModelManifest* const> models);

// What a manifest recommends; nothing where it has no such key.
struct Recommendations {
  std::optional<v1::Extension> one_vector;
  std::optional<v1::Extension> window_vectors;  // Has windows.
};

// Errors: FAILED_PRECONDITION, with the manifest's key, when one is not JSON of longembed.v1.Extension, when the model
// cannot do it, or when the one for several vectors has no windows.
absl::StatusOr<Recommendations> RecommendationsOf(const ModelManifest& manifest);

// What a request asks for, `recommended` (which depends on `output`) and `profile` resolved, checked against the model.
// Errors (INVALID_ARGUMENT): those of CheckExtension, below options.extension; UNKNOWN_ENUM_VALUE, UNKNOWN_PROFILE,
// EXTENSION_CONFLICT (two methods, or something beside `recommended` or `profile`).
absl::StatusOr<Extension> ResolveExtension(const v1::Extension& asked, v1::EmbedOptions::Output output,
                                           const ModelManifest& model, const Profiles& profiles);

// What GetModel says of them.
void FillRecommendations(const ModelManifest& manifest, v1::Model& model);

void FillSequence(const PlannedSequence& planned, v1::Sequence& sequence);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_EXTENSION_CONVERTER_H_
