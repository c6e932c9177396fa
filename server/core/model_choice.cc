#include "server/core/model_choice.h"

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors/errors.h"

namespace longembed {
namespace {

// Returns the part of `name` after "NAME:" if the model has that name.
std::optional<std::string> ProfileIn(std::string_view name, const NamedManifest& model) {
  const std::string prefix = model.name + kAliasSeparator;
  if (!name.starts_with(prefix)) return std::nullopt;
  return std::string(name.substr(prefix.size()));
}

absl::StatusOr<NameChoice> WithProfile(size_t index, const NamedManifest& model, const Profiles::value_type& profile,
                                       std::string_view field) {
  const auto& [name, extension] = profile;
  if (const absl::Status status = CheckExtension(*model.manifest, extension); !status.ok()) {
    return ProfileDoesNotFit(field, name, status);
  }
  return NameChoice{.index = index, .profile = name, .extension = &extension};
}

// Returns the names of all models and their aliases.
std::vector<std::string> KnownNames(std::span<const NamedManifest> models, const Profiles& profiles) {
  std::vector<std::string> names;
  for (const NamedManifest& model : models) {
    names.push_back(model.name);
    for (std::string& alias : AliasesOf(model, profiles)) names.push_back(std::move(alias));
  }
  return names;
}

}  // namespace

absl::StatusOr<NameChoice> ResolveName(std::span<const NamedManifest> models, const Profiles& profiles,
                                       std::string_view name, std::string_view field) {
  for (size_t i = 0; i < models.size(); ++i) {
    if (models[i].name == name) return NameChoice{.index = i};
  }
  if (name.empty()) {
    if (models.size() == 1) return NameChoice{};
    return ModelNotNamed(field, KnownNames(models, profiles));
  }
  const NamedManifest* named = nullptr;
  std::string profile;
  for (size_t i = 0; i < models.size(); ++i) {
    const std::optional<std::string> behind = ProfileIn(name, models[i]);
    if (!behind.has_value()) continue;
    if (const auto found = profiles.find(*behind); found != profiles.end()) {
      return WithProfile(i, models[i], *found, field);
    }
    named = &models[i];
    profile = *behind;
  }
  if (named == nullptr) return UnknownModel(field, name, KnownNames(models, profiles));
  return UnknownProfileOfModel(field, named->name, profile, ProfilesOf(*named->manifest, profiles));
}

absl::StatusOr<ModelChoice> ResolveModel(const ModelRegistry& models, const Profiles& profiles, std::string_view name,
                                         std::string_view field) {
  absl::StatusOr<NameChoice> choice = ResolveName(models.manifests(), profiles, name, field);
  if (!choice.ok()) return choice.status();
  return ModelChoice{.model = models.models()[choice->index].get(),
                     .profile = std::move(choice->profile),
                     .extension = choice->extension};
}

std::vector<std::string> AliasesOf(const NamedManifest& model, const Profiles& profiles) {
  std::vector<std::string> aliases = ProfilesOf(*model.manifest, profiles);
  for (std::string& alias : aliases) alias = absl::StrCat(model.name, std::string(1, kAliasSeparator), alias);
  return aliases;
}

absl::Status CheckAliases(std::span<const NamedManifest> models, const Profiles& profiles) {
  std::set<std::string> seen;
  for (const std::string& name : KnownNames(models, profiles)) {
    if (seen.insert(name).second) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name, "\" would name two things: a model, or a model and its profile as NAME:PROFILE; ",
                     "give the model another name in the config"));
  }
  return absl::OkStatus();
}

}  // namespace longembed
