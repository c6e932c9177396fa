// Resolves the name of a model in a request, which may be an alias: NAME:PROFILE is the model NAME with that profile's
// extension. Independent of the API: every API that has a field for a model uses it. Pure functions that any thread can
// call.
//
//   absl::StatusOr<ModelChoice> choice = ResolveModel(models, profiles, "e5-small-v2:archive", "options.model");
//   if (choice.ok() && choice->extension != nullptr) plan.extension = *choice->extension;
#ifndef LONGEMBED_SERVER_CORE_MODEL_CHOICE_H_
#define LONGEMBED_SERVER_CORE_MODEL_CHOICE_H_

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

struct ModelChoice {
  ServedModel* model = nullptr;
  std::string profile;                   // The alias's profile. Empty: the request named the model alone.
  const Extension* extension = nullptr;  // The profile's, checked against the model. Lives as long as the profiles.
};

// Finds the model that `name` stands for: a model's name, which takes precedence; an alias; or empty, for the only
// model. `field` is the request's field that has the name. Errors: NOT_FOUND (UNKNOWN_MODEL, UNKNOWN_PROFILE), which
// list the known names; INVALID_ARGUMENT (MODEL_NOT_NAMED, or why the model does not support the profile).
absl::StatusOr<ModelChoice> ResolveModel(const ModelRegistry& models, const Profiles& profiles, std::string_view name,
                                         std::string_view field);

// Returns NAME:PROFILE for each profile that the model supports.
std::vector<std::string> AliasesOf(const ServedModel& model, const Profiles& profiles);

// Returns a model's name, and its aliases.
std::vector<std::string> NamesOf(const std::string& name, const ModelManifest& model, const Profiles& profiles);

// Checks that no name or alias of all models is ambiguous. Errors (INVALID_ARGUMENT) say which one is.
absl::Status CheckNames(const std::vector<std::string>& names);
absl::Status CheckAliases(const ModelRegistry& models, const Profiles& profiles);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_MODEL_CHOICE_H_
