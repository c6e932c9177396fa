#include "server/core/profiles.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/plan/extension_json.h"

namespace longembed {

absl::StatusOr<Extension> ParseExtensionOf(const std::string& key, const std::string& json) {
  absl::StatusOr<Extension> extension = ParseExtension(json);
  if (!extension.ok()) return absl::InvalidArgumentError(absl::StrCat(key, ": ", extension.status().message()));
  return extension;
}

absl::StatusOr<Profiles> ParseProfiles(const std::map<std::string, std::string>& json) {
  Profiles profiles;
  for (const auto& [name, text] : json) {
    absl::StatusOr<Extension> extension = ParseExtensionOf("profiles." + name, text);
    if (!extension.ok()) return extension.status();
    profiles.emplace(name, *std::move(extension));
  }
  return profiles;
}

std::vector<std::string> ProfilesOf(const ModelManifest& model, const Profiles& profiles) {
  std::vector<std::string> names;
  for (const auto& [name, extension] : profiles) {
    if (CheckExtension(model, extension).ok()) names.push_back(name);
  }
  return names;
}

void FitWindows(const ModelManifest& model, int64_t max_tokens_per_sequence, Extension& extension) {
  if (!extension.windows.has_value() || extension.windows->tokens.has_value()) return;
  if (WindowTokens(model, extension) > max_tokens_per_sequence) extension.windows->tokens = max_tokens_per_sequence;
}

absl::Status CheckWindowSize(const Extension& extension, int64_t max_tokens_per_sequence) {
  if (!extension.windows.has_value() || !extension.windows->tokens.has_value()) return absl::OkStatus();
  const int64_t tokens = *extension.windows->tokens;
  if (tokens <= max_tokens_per_sequence) return absl::OkStatus();
  return WindowBeyondServerLimit("windows.tokens", tokens, max_tokens_per_sequence);
}

void AggregateSparse(Extension& extension) {
  if (!extension.windows.has_value()) return;
  extension.windows->aggregation = Aggregation::kMax;
  extension.windows->norm_temperature = std::nullopt;
  extension.windows->top = std::nullopt;
}

absl::Status CheckProfiles(const Profiles& profiles, std::span<const ModelManifest* const> models) {
  for (const auto& [name, extension] : profiles) {
    const auto fits = [&](const ModelManifest* model) { return CheckExtension(*model, extension).ok(); };
    if (std::ranges::any_of(models, fits)) continue;
    const absl::Status reason = CheckExtension(*models.front(), extension);
    return absl::InvalidArgumentError(absl::StrCat("profiles.", name, " fits no model; ", reason.message()));
  }
  return absl::OkStatus();
}

}  // namespace longembed
