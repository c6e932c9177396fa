// Extensions that have a name in the server's config. Pure functions: any thread.
#ifndef LONGEMBED_SERVER_CORE_PROFILES_H_
#define LONGEMBED_SERVER_CORE_PROFILES_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/plan/extension.h"

namespace longembed {

using Profiles = std::map<std::string, Extension>;

// The extension that stands as JSON at `key` of the config. Errors (INVALID_ARGUMENT): those of ParseExtension, after
// the key.
absl::StatusOr<Extension> ParseExtensionOf(const std::string& key, const std::string& json);

// The profiles from their JSON. Errors (INVALID_ARGUMENT): those of ParseExtensionOf.
absl::StatusOr<Profiles> ParseProfiles(const std::map<std::string, std::string>& json);

// The names of the profiles that a model supports.
std::vector<std::string> ProfilesOf(const ModelManifest& model, const Profiles& profiles);

// Fits windows without an explicit size into the server's limit of one pass.
void FitWindows(const ModelManifest& model, int64_t max_tokens_per_sequence, Extension& extension);

// Aggregates windows as sparse vectors need it: by the maximum, whatever the extension says.
void AggregateSparse(Extension& extension);

// That each can be done by one of the models. Errors (INVALID_ARGUMENT): names the profile, and why the first model
// refuses it.
absl::Status CheckProfiles(const Profiles& profiles, std::span<const ModelManifest* const> models);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_PROFILES_H_
