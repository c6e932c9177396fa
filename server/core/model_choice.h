// Which model a name in a request stands for, and under which profile: an alias NAME:PROFILE is the model NAME with
// that profile's extension. Knows no API: any front that has a field for a model resolves it here. Pure functions: any
// thread.
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
#include "server/core/profiles.h"
#include "server/core/served_model.h"

namespace longembed {

// Between a model's name and a profile's.
inline constexpr char kAliasSeparator = ':';

struct ModelChoice {
  ServedModel* model = nullptr;
  std::string profile;                   // Of the alias. Empty: the request named the model alone.
  const Extension* extension = nullptr;  // The profile's, checked against the model. Lives as long as the profiles.
};

// `name`: a model's name, which always wins; an alias of one; or empty, for the only model. `field` is where the
// request says it. Errors: NOT_FOUND (UNKNOWN_MODEL, UNKNOWN_PROFILE), which list what there is; INVALID_ARGUMENT
// (MODEL_NOT_NAMED, or why the model cannot do the profile).
absl::StatusOr<ModelChoice> ResolveModel(const ModelRegistry& models, const Profiles& profiles, std::string_view name,
                                         std::string_view field);

// NAME:PROFILE for each profile that the model can do.
std::vector<std::string> AliasesOf(const ServedModel& model, const Profiles& profiles);

// Whether each name and alias stands for one thing. Errors (INVALID_ARGUMENT): names what stands for two.
absl::Status CheckAliases(const ModelRegistry& models, const Profiles& profiles);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_MODEL_CHOICE_H_
