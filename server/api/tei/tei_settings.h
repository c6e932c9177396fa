// Resolves the section tei of the config. Pure functions that need the manifests of models, but not their weights.
#ifndef LONGEMBED_SERVER_API_TEI_TEI_SETTINGS_H_
#define LONGEMBED_SERVER_API_TEI_TEI_SETTINGS_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "model/plan/extension.h"
#include "server/config/config.h"
#include "server/core/model_registry.h"
#include "server/core/profiles.h"

namespace longembed {

struct TeiSettings {
  size_t index = 0;                    // Of the model that answers, among those of the server.
  std::string prompt;                  // The default prompt; empty: none.
  std::optional<Extension> extension;  // For long texts.
};

// Returns nullopt if tei.v1 is not offered, because there are several models and the config names none. Errors
// (NOT_FOUND, INVALID_ARGUMENT) name the key.
absl::StatusOr<std::optional<TeiSettings>> ResolveTei(const TeiConfig& config, std::span<const NamedManifest> models,
                                                      const Profiles& profiles, const LimitsConfig& limits);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_TEI_TEI_SETTINGS_H_
