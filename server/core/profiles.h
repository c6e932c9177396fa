// Profiles: extensions with names, from the server's config. Pure functions that any thread can call.
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

// Parses the JSON of an extension at `key` of the config. Errors (INVALID_ARGUMENT): those of ParseExtension, after the
// key.
absl::StatusOr<Extension> ParseExtensionOf(const std::string& key, const std::string& json);

// Parses all profiles. Errors (INVALID_ARGUMENT): those of ParseExtensionOf.
absl::StatusOr<Profiles> ParseProfiles(const std::map<std::string, std::string>& json);

// Returns the names of the profiles that a model supports.
std::vector<std::string> ProfilesOf(const ModelManifest& model, const Profiles& profiles);

// Reduces windows without an explicit size to the server's limit of one pass.
void FitWindows(const ModelManifest& model, int64_t max_tokens_per_sequence, Extension& extension);

// Checks that windows of an explicit size are within the server's limit of one pass. Errors (INVALID_ARGUMENT):
// WINDOW_TOO_LARGE with the field `windows.tokens`.
absl::Status CheckWindowSize(const Extension& extension, int64_t max_tokens_per_sequence);

// Sets the aggregation of windows that sparse vectors need: the maximum, whatever the extension says.
void AggregateSparse(Extension& extension);

// Checks that each profile is supported by at least one model. Errors (INVALID_ARGUMENT) name the profile, and why the
// first model does not support it.
absl::Status CheckProfiles(const Profiles& profiles, std::span<const ModelManifest* const> models);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_PROFILES_H_
