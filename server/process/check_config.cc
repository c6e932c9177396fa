#include "server/process/check_config.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <list>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/embed/model.h"
#include "model/errors/errors.h"
#include "model/manifest/manifest.h"
#include "model/plan/recommendations.h"
#include "server/api/tei/tei_settings.h"
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

void CheckAddresses(const ServerConfig& config, Problems& problems) {
  std::vector<std::pair<std::string, std::string>> seen;  // Key and address.
  for (const auto& [key, address] : ConfigValues(config)) {
    // Keys with a dot, such as profiles.listen, are of something else.
    if (!absl::EndsWith(key, "listen") || absl::StrContains(key, '.') || (address.empty() && key != "listen")) continue;
    problems.Add(key, CheckAddress(address));
    const auto first = std::ranges::find_if(
        seen, [&address = address](const auto& other) { return TakeSamePort(address, other.second); });
    if (first != seen.end()) {
      const std::string taken = address == first->second
                                    ? absl::StrCat(" is the address of ", first->first, ", too")
                                    : absl::StrCat(" takes the port of ", first->first, ", ", first->second);
      problems.Add(key, absl::InvalidArgumentError(absl::StrCat(address, taken, "; each needs a port of its own")));
    }
    seen.emplace_back(key, address);
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

// Checks the files of a model as far as its weights need not be read.
absl::Status CheckFilesOfModel(const std::string& directory) {
  const absl::StatusOr<ModelManifest> manifest = ReadManifest(directory);
  if (!manifest.ok()) return absl::OkStatus();  // CheckModels reports it.
  RETURN_IF_ERROR(CheckFiles(directory, *manifest));
  return LoadTokenizer(directory, *manifest).status();
}

// The manifests of the config's models, and their names.
struct Manifests {
  std::list<ModelManifest> manifests;
  std::vector<NamedManifest> named;
};

// Returns nullopt if a manifest cannot be read or a name is taken, because references to models cannot be checked then.
std::optional<Manifests> ReadManifests(const ServerConfig& config, Problems& problems) {
  Manifests all;
  std::set<std::string> names;
  for (size_t i = 0; i < config.models.size(); ++i) {
    const std::string key = absl::StrCat("models[", i, "]");
    absl::StatusOr<ModelManifest> manifest = ReadManifest(config.models[i].path);
    problems.Add(key, manifest.status());
    if (!manifest.ok()) continue;
    problems.Add(key, RecommendationsOf(*manifest).status());
    const ModelManifest& kept = all.manifests.emplace_back(*std::move(manifest));
    const std::string name = config.models[i].name.empty() ? kept.name : config.models[i].name;
    all.named.push_back({.name = name, .manifest = &kept});
    if (names.insert(name).second) continue;
    problems.Add(key, absl::InvalidArgumentError(absl::StrCat("two models are named ", name,
                                                              "; give one of them another name in the config")));
  }
  return names.size() == config.models.size() ? std::optional(std::move(all)) : std::nullopt;
}

// Parses profiles one by one, so that all errors are reported. Returns nullopt if there are errors.
std::optional<Profiles> ReadProfiles(const ServerConfig& config, Problems& problems) {
  Profiles profiles;
  for (const auto& profile : config.profiles) {
    absl::StatusOr<Profiles> parsed = ParseProfiles({profile});
    problems.Add(parsed.status());
    if (parsed.ok()) profiles.merge(*parsed);
  }
  return profiles.size() == config.profiles.size() ? std::optional(std::move(profiles)) : std::nullopt;
}

// Checks what refers to models by their names, or has to fit one of them.
void CheckReferences(const ServerConfig& config, const Manifests& models, const Profiles& profiles,
                     Problems& problems) {
  std::vector<const ModelManifest*> manifests;
  for (const ModelManifest& manifest : models.manifests) manifests.push_back(&manifest);
  for (const auto& profile : profiles) {
    problems.Add(CheckProfiles({profile}, manifests));
    problems.Add("profiles." + profile.first, CheckWindowSize(profile.second, config.limits.max_tokens_per_sequence));
  }
  problems.Add(CheckAliases(models.named, profiles));
  problems.Add(CheckOpenAiPrompt(config.http, manifests));
  problems.Add(ResolveTei(config.tei, models.named, profiles, config.limits).status());
}

}  // namespace

void CheckModels(const ServerConfig& config, const CheckMachine& check_machine, Problems& problems) {
  for (size_t i = 0; i < config.models.size(); ++i) {
    problems.Add(absl::StrCat("models[", i, "]"), check_machine(config, config.models[i]));
  }
  const std::optional<Manifests> models = ReadManifests(config, problems);
  const std::optional<Profiles> profiles = ReadProfiles(config, problems);
  if (models.has_value() && profiles.has_value()) return CheckReferences(config, *models, *profiles, problems);
  problems.Add(ParseExtensionOf("tei.extension", config.tei.extension).status());
}

void CheckStart(const ServerConfig& config, const CheckMachine& check_machine, Problems& problems) {
  Metrics metrics{{}};
  Secrets secrets;
  CheckHostLimits(config, ReadHostLimits(), problems);
  CheckAddresses(config, problems);
  secrets.Open(config, metrics, problems);
  CheckModels(config, check_machine, problems);
  for (size_t i = 0; i < config.models.size(); ++i) {
    problems.Add(absl::StrCat("models[", i, "]"), CheckFilesOfModel(config.models[i].path));
  }
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
