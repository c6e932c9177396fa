// Resolves the name of a model in a request, which may be an alias: NAME:PROFILE is the model NAME with that profile's
// extension. Independent of the API: every API that has a field for a model uses it. Pure functions that any thread can
// call.
//
//   absl::StatusOr<ModelChoice> choice = ResolveModel(models, profiles, "e5-small-v2:archive", "options.model");
//   if (choice.ok() && choice->extension != nullptr) plan.extension = *choice->extension;
#ifndef LONGEMBED_SERVER_CORE_MODEL_CHOICE_H_
#define LONGEMBED_SERVER_CORE_MODEL_CHOICE_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/model_registry.h"
#include "server/core/profiles.h"

namespace longembed {

// Separates a model's name from a profile's.
inline constexpr char kAliasSeparator = ':';

// A model among those that are searched.
struct NameChoice {
  size_t index = 0;
  std::string profile;                   // The alias's profile. Empty: the name is the model's own.
  const Extension* extension = nullptr;  // The profile's, checked against the model. Lives as long as the profiles.
};

// Finds the model that `name` stands for: a model's name, which takes precedence; an alias; or empty, for the only
// model. `field` is the field or the key that has the name. Errors: NOT_FOUND (UNKNOWN_MODEL, UNKNOWN_PROFILE), which
// list the known names; INVALID_ARGUMENT (MODEL_NOT_NAMED, or why the model does not support the profile).
absl::StatusOr<NameChoice> ResolveName(std::span<const NamedManifest> models, const Profiles& profiles,
                                       std::string_view name, std::string_view field);

struct ModelChoice {
  ServedModel* model = nullptr;
  std::string profile;                   // As in NameChoice.
  const Extension* extension = nullptr;  // As in NameChoice.
};

// Does the same for models that are served.
absl::StatusOr<ModelChoice> ResolveModel(const ModelRegistry& models, const Profiles& profiles, std::string_view name,
                                         std::string_view field);

// Returns NAME:PROFILE for each profile that the model supports.
std::vector<std::string> AliasesOf(const NamedManifest& model, const Profiles& profiles);

// Checks that no name or alias is ambiguous. Errors (INVALID_ARGUMENT) say which one is.
absl::Status CheckAliases(std::span<const NamedManifest> models, const Profiles& profiles);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_MODEL_CHOICE_H_
