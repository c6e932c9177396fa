#include "server/api/tei/tei_settings.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/prompt.h"
#include "server/core/model_choice.h"

namespace longembed {
namespace {

// Returns a key that is set though it has no meaning where tei.v1 is not served; empty if there is none.
std::string KeyWithoutModel(const TeiConfig& config) {
  if (!config.default_prompt.empty()) return "tei.default_prompt";
  if (!config.profile.empty()) return "tei.profile";
  return config.has_extension() ? "tei.extension" : "";
}

// Returns the extension that the config names, and sets `key` to the key that names it.
absl::StatusOr<Extension> ReadExtension(const TeiConfig& config, const NameChoice& choice, const Profiles& profiles,
                                        std::string& key) {
  const bool has_key = !config.profile.empty() || config.has_extension();
  if (choice.extension != nullptr) {
    key = "tei.model";
    if (!has_key) return *choice.extension;
    return absl::InvalidArgumentError(
        absl::StrCat("tei.model names the profile \"", choice.profile, "\"; leave out tei.profile and tei.extension"));
  }
  key = config.profile.empty() ? "tei.extension" : "tei.profile";
  if (config.profile.empty()) return ParseExtensionOf(key, config.extension);
  const auto found = profiles.find(config.profile);
  if (found != profiles.end()) return found->second;
  return absl::InvalidArgumentError(absl::StrCat("tei.profile is \"", config.profile, "\", which is not a profile"));
}

// Returns the extension for long texts; nullopt if the config has none. Errors name the key.
absl::StatusOr<std::optional<Extension>> ExtensionOf(const TeiConfig& config, const NameChoice& choice,
                                                     const NamedManifest& model, const Profiles& profiles,
                                                     const LimitsConfig& limits) {
  std::string key;
  absl::StatusOr<Extension> extension = ReadExtension(config, choice, profiles, key);
  if (!extension.ok()) return extension.status();
  if (key == "tei.extension" && !config.has_extension()) return std::nullopt;
  if (const absl::Status status = CheckExtension(*model.manifest, *extension); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(key, " does not fit the model ", model.name, ": ", std::string(status.message())));
  }
  if (extension->windows.has_value() && extension->windows->vectors.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(key, " has windows.vectors, which is ", *extension->windows->vectors,
                                                   ", and tei.v1 gives one vector of a text; leave it out"));
  }
  if (const absl::Status status = CheckWindowSize(*extension, limits.max_tokens_per_sequence); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(key, ": ", std::string(status.message())));
  }
  FitWindows(*model.manifest, limits.max_tokens_per_sequence, *extension);
  return *std::move(extension);
}

}  // namespace

absl::StatusOr<std::optional<TeiSettings>> ResolveTei(const TeiConfig& config, std::span<const NamedManifest> models,
                                                      const Profiles& profiles, const LimitsConfig& limits) {
  if (config.model.empty() && models.size() != 1) {
    const std::string key = KeyWithoutModel(config);
    if (key.empty()) return std::nullopt;
    return absl::InvalidArgumentError(absl::StrCat(key, " is set, but with several models tei.model has to name one"));
  }
  const absl::StatusOr<NameChoice> choice = ResolveName(models, profiles, config.model, "tei.model");
  if (!choice.ok()) return choice.status();
  const NamedManifest& model = models[choice->index];
  absl::StatusOr<std::optional<Extension>> extension = ExtensionOf(config, *choice, model, profiles, limits);
  if (!extension.ok()) return extension.status();
  const PromptChoice prompt_choice =
      config.default_prompt.empty() ? PromptChoice() : PromptChoice(PromptName{config.default_prompt});
  absl::StatusOr<std::string> prompt = ResolvePrompt(*model.manifest, prompt_choice);
  if (!prompt.ok()) return RenameField(prompt.status(), "options.prompt_name", "tei.default_prompt");
  return TeiSettings{.index = choice->index, .prompt = *std::move(prompt), .extension = *std::move(extension)};
}

}  // namespace longembed
