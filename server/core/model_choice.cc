#include "server/core/model_choice.h"

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors/errors.h"

namespace longembed {
namespace {

// Returns the part of `name` after "NAME:" if the model has that name.
std::optional<std::string> ProfileIn(std::string_view name, const ServedModel& model) {
  const std::string prefix = model.name() + kAliasSeparator;
  if (!name.starts_with(prefix)) return std::nullopt;
  return std::string(name.substr(prefix.size()));
}

absl::StatusOr<ModelChoice> WithProfile(ServedModel& model, const Profiles::value_type& profile,
                                        std::string_view field) {
  const auto& [name, extension] = profile;
  if (const absl::Status status = CheckExtension(model.model().manifest, extension); !status.ok()) {
    return ProfileDoesNotFit(field, name, status);
  }
  return ModelChoice{.model = &model, .profile = name, .extension = &extension};
}

// Returns the names of all models and their aliases.
std::vector<std::string> KnownNames(const ModelRegistry& models, const Profiles& profiles) {
  std::vector<std::string> names;
  for (const auto& model : models.models()) {
    for (std::string& name : NamesOf(model->name(), model->model().manifest, profiles))
      names.push_back(std::move(name));
  }
  return names;
}

}  // namespace

absl::StatusOr<ModelChoice> ResolveModel(const ModelRegistry& models, const Profiles& profiles, std::string_view name,
                                         std::string_view field) {
  for (const auto& model : models.models()) {
    if (model->name() == name) return ModelChoice{.model = model.get()};
  }
  if (name.empty()) {
    if (models.models().size() == 1) return ModelChoice{.model = models.models().front().get()};
    return ModelNotNamed(field, KnownNames(models, profiles));
  }
  const ServedModel* named = nullptr;
  std::string profile;
  for (const auto& model : models.models()) {
    const std::optional<std::string> behind = ProfileIn(name, *model);
    if (!behind.has_value()) continue;
    if (const auto found = profiles.find(*behind); found != profiles.end()) return WithProfile(*model, *found, field);
    named = model.get();
    profile = *behind;
  }
  if (named == nullptr) return UnknownModel(field, name, KnownNames(models, profiles));
  return UnknownProfileOfModel(field, named->name(), profile, ProfilesOf(named->model().manifest, profiles));
}

std::vector<std::string> AliasesOf(const ServedModel& model, const Profiles& profiles) {
  std::vector<std::string> names = NamesOf(model.name(), model.model().manifest, profiles);
  names.erase(names.begin());
  return names;
}

std::vector<std::string> NamesOf(const std::string& name, const ModelManifest& model, const Profiles& profiles) {
  std::vector<std::string> names{name};
  for (const std::string& profile : ProfilesOf(model, profiles)) {
    names.push_back(absl::StrCat(name, std::string(1, kAliasSeparator), profile));
  }
  return names;
}

absl::Status CheckAliases(const ModelRegistry& models, const Profiles& profiles) {
  return CheckNames(KnownNames(models, profiles));
}

absl::Status CheckNames(const std::vector<std::string>& names) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (seen.insert(name).second) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name, "\" would name two things: a model, or a model and its profile as NAME:PROFILE; ",
                     "give the model another name in the config"));
  }
  return absl::OkStatus();
}

}  // namespace longembed
