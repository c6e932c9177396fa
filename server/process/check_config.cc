#include "server/process/check_config.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/errors/errors.h"
#include "model/manifest/manifest.h"
#include "model/plan/recommendations.h"
#include "model/text/hf_tokenizer.h"
#include "model/text/prompt.h"
#include "server/core/model_choice.h"
#include "server/core/profiles.h"
#include "server/net/acceptor.h"
#include "server/process/arguments.h"
#include "server/process/secrets.h"
#include "server/telemetry/log.h"
#include "server/telemetry/metrics.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using Manifests = std::map<std::string, ModelManifest>;  // Name in requests -> manifest.

void CheckAddresses(const ServerConfig& config, Problems& problems) {
  std::map<std::string, std::string> key_of;
  for (const auto& [key, address] : ConfigValues(config)) {
    if (!absl::EndsWith(key, "listen") || (address.empty() && key != "listen")) continue;
    problems.Add(key, CheckAddress(address));
    const auto [first, is_new] = key_of.emplace(address, key);
    if (is_new || absl::EndsWith(address, ":0")) continue;
    problems.Add(absl::InvalidArgumentError(
        absl::StrCat(key, ": ", address, " is the address of ", first->second, ", too; each needs a port of its own")));
  }
}

// Checks that the files with checksums in the manifest can be read, and the checksums of those that are not weights.
absl::Status CheckFiles(const std::string& directory, const ModelManifest& manifest) {
  ModelManifest small = manifest;
  for (const char* const weights : {kEncoderFile, kSparseHeadFile}) small.file_sha256.erase(weights);
  for (const auto& [file, sum] : manifest.file_sha256) {
    const std::string path = absl::StrCat(directory, "/", file);
    if (!std::ifstream(path).is_open()) {
      return absl::FailedPreconditionError(absl::StrCat(path, " cannot be opened: ", std::strerror(errno)));
    }
  }
  return VerifyFiles(small, directory);
}

absl::StatusOr<ModelManifest> CheckModel(const std::string& directory) {
  absl::StatusOr<ModelManifest> manifest = ReadManifest(directory);
  if (!manifest.ok()) return manifest;
  RETURN_IF_ERROR(CheckFiles(directory, *manifest));
  if (const auto recommended = RecommendationsOf(*manifest); !recommended.ok()) return recommended.status();
  const auto tokenizer = LoadHuggingFaceTokenizer(absl::StrCat(directory, "/", kTokenizerFile));
  if (!tokenizer.ok()) return tokenizer.status();
  return manifest;
}

// Returns nullopt if a model cannot be read, because other references to models cannot be checked then.
std::optional<Manifests> CheckModels(const ServerConfig& config, const CheckMachine& check_machine,
                                     Problems& problems) {
  Manifests manifests;
  bool complete = true;
  for (size_t i = 0; i < config.models.size(); ++i) {
    const ModelConfig& model = config.models[i];
    problems.Add(absl::StrCat("models[", i, "]"), check_machine(config, model));
    absl::StatusOr<ModelManifest> manifest = CheckModel(model.path);
    problems.Add(absl::StrCat("models[", i, "]"), manifest.status());
    complete = complete && manifest.ok();
    if (!manifest.ok()) continue;
    const std::string name = model.name.empty() ? manifest->name : model.name;
    if (manifests.emplace(name, *std::move(manifest)).second) continue;
    problems.Add(absl::InvalidArgumentError(
        absl::StrCat("models[", i, "]: two models are named ", name, "; give one of them another name in the config")));
  }
  return complete ? std::optional(std::move(manifests)) : std::nullopt;
}

// Returns the model with this name or alias NAME:PROFILE; the end if there is none.
Manifests::const_iterator FindModel(const Manifests& manifests, const std::string& name, const ServerConfig& config) {
  if (const auto exact = manifests.find(name); exact != manifests.end()) return exact;
  const size_t separator = name.rfind(kAliasSeparator);
  const bool is_alias = separator != std::string::npos && config.profiles.contains(name.substr(separator + 1));
  return is_alias ? manifests.find(name.substr(0, separator)) : manifests.end();
}

void CheckTei(const ServerConfig& config, const Manifests& manifests, Problems& problems) {
  const TeiConfig& tei = config.tei;
  if (tei.model.empty() && manifests.size() != 1) {
    if (tei.default_prompt.empty()) return;
    return problems.Add(
        absl::InvalidArgumentError("tei.default_prompt is set, but with several models tei.model has to name one"));
  }
  const auto found = tei.model.empty() ? manifests.begin() : FindModel(manifests, tei.model, config);
  if (found == manifests.end()) {
    const std::string names =
        absl::StrJoin(manifests, ", ", [](std::string* out, const auto& model) { absl::StrAppend(out, model.first); });
    return problems.Add(absl::InvalidArgumentError(
        absl::StrCat("tei.model: there is no model \"", tei.model, "\"; there are: ", names)));
  }
  if (tei.default_prompt.empty()) return;
  problems.Add("tei.default_prompt", ResolvePrompt(found->second, PromptName{tei.default_prompt}).status());
}

// Checks the names and aliases of all models together. Profiles that cannot be parsed are reported elsewhere.
absl::Status CheckAllNames(const ServerConfig& config, const Manifests& manifests) {
  const absl::StatusOr<Profiles> profiles = ParseProfiles(config.profiles);
  if (!profiles.ok()) return absl::OkStatus();
  std::vector<std::string> names;
  for (const auto& [model, manifest] : manifests) {
    for (std::string& name : NamesOf(model, manifest, *profiles)) names.push_back(std::move(name));
  }
  return CheckNames(names);
}

// Checks profiles one by one, so that all errors are reported.
void CheckReferences(const ServerConfig& config, const std::optional<Manifests>& manifests, Problems& problems) {
  std::vector<const ModelManifest*> models;
  if (manifests.has_value()) {
    for (const auto& [name, manifest] : *manifests) models.push_back(&manifest);
  }
  for (const auto& profile : config.profiles) {
    const absl::StatusOr<Profiles> parsed = ParseProfiles({profile});
    problems.Add(parsed.status());
    if (parsed.ok() && !models.empty()) problems.Add(CheckProfiles(*parsed, models));
  }
  if (!models.empty()) problems.Add(CheckOpenAiPrompt(config.http, models));
  if (manifests.has_value()) problems.Add(CheckAllNames(config, *manifests));
}

}  // namespace

void CheckStart(const ServerConfig& config, const CheckMachine& check_machine, Problems& problems) {
  Metrics metrics{{}};
  Secrets secrets;
  CheckHostLimits(config, ReadHostLimits(), problems);
  CheckAddresses(config, problems);
  secrets.Open(config, metrics, problems);
  const std::optional<Manifests> manifests = CheckModels(config, check_machine, problems);
  if (manifests.has_value()) CheckTei(config, *manifests, problems);
  CheckReferences(config, manifests, problems);
}

int CheckConfig(const std::string& path, const CheckMachine& check_machine, std::ostream& out, std::ostream& err) {
  SetLogFormat(LogFormat::kText);
  SetLogLevel(LogLevel::kWarning);
  Problems problems;
  const absl::StatusOr<ServerConfig> config = ReadConfig(path);
  problems.Add(config.status());
  if (config.ok()) CheckStart(*config, check_machine, problems);
  for (const std::string& problem : problems.all()) err << problem << "\n";
  err << std::flush;
  if (!config.ok()) return kExitUsage;
  if (!problems.all().empty()) return kExitFailure;
  out << path << ": no problem found\n" << std::flush;
  return out ? 0 : kExitFailure;
}

}  // namespace longembed
