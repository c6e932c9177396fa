#include "server/config/overrides.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "model/yaml/yaml_mapping.h"
#include "program/suggestion.h"
#include "server/config/describe_config.h"

namespace longembed {
namespace {

constexpr char kPrefix[] = "LONGEMBED__";

std::string VariableOf(const std::string& key) {
  return absl::StrCat(kPrefix, absl::AsciiStrToUpper(absl::StrReplaceAll(key, {{".", "__"}})));
}

// Returns the name with each double underscore replaced by a single one.
std::string WithSingleUnderscores(std::string_view variable) {
  return absl::StrReplaceAll(std::string(variable), {{"__", "_"}});
}

// Returns a map from each variable to its key.
std::map<std::string, std::string> KnownVariables() {
  std::map<std::string, std::string> known;
  for (const auto& [key, value] : ConfigValues(ServerConfig())) known.emplace(VariableOf(key), key);
  return known;
}

std::string WhyUnknown(const std::string& variable, const std::map<std::string, std::string>& known) {
  for (const char* const section : {"LONGEMBED__MODELS", "LONGEMBED__PROFILES"}) {
    if (absl::StartsWith(variable, section)) {
      return absl::StrCat(variable, ": models and profiles can be set only in the config file");
    }
  }
  std::vector<std::string> names;
  for (const auto& [name, key] : known) names.push_back(name);
  const std::string suggestion = Suggest(variable, names);
  return absl::StrCat(
      variable, " names no key of the config",
      suggestion.empty() ? "; LONGEMBED__LIMITS__MAX_QUEUE_WAIT, say, is limits.max_queue_wait" : suggestion);
}

// Returns why a variable has no effect, or "" if it is not meant as an override.
std::string WhyMissed(const std::string& variable, const std::map<std::string, std::string>& known) {
  for (const auto& [name, key] : known) {
    if (WithSingleUnderscores(name) == WithSingleUnderscores(variable)) {
      return absl::StrCat(variable, " is not read; ", key, " of the config is set by ", name);
    }
  }
  return "";
}

// Returns the override as a tree: {limits: {max_queue_wait: VALUE}}.
YamlNode TreeOf(const ConfigOverride& override) {
  YamlNode node{.kind = YamlNode::Kind::kScalar, .line = 0, .scalar = override.value};
  const std::vector<std::string> parts = absl::StrSplit(override.key, '.');
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    YamlNode mapping{.kind = YamlNode::Kind::kMapping, .line = 0};
    mapping.entries.push_back(
        {.key = {.kind = YamlNode::Kind::kScalar, .line = 0, .scalar = *part}, .value = std::move(node)});
    node = std::move(mapping);
  }
  return node;
}

}  // namespace

Environment ProcessEnvironment() {
  Environment environment;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    environment.emplace_back(*variable);
  }
  return environment;
}

absl::StatusOr<std::vector<ConfigOverride>> FindOverrides(const Environment& environment) {
  const std::map<std::string, std::string> known = KnownVariables();
  std::vector<ConfigOverride> overrides;
  std::vector<std::string> problems;
  for (const std::string& entry : environment) {
    const std::string variable = entry.substr(0, entry.find('='));
    if (!absl::StartsWith(variable, "LONGEMBED_") || variable.size() == entry.size()) continue;
    const auto found = known.find(variable);
    if (found != known.end()) {
      overrides.push_back({.variable = variable, .key = found->second, .value = entry.substr(variable.size() + 1)});
    } else if (absl::StartsWith(variable, kPrefix)) {
      problems.push_back(WhyUnknown(variable, known));
    } else if (std::string why = WhyMissed(variable, known); !why.empty()) {
      problems.push_back(std::move(why));
    }
  }
  std::ranges::sort(problems);
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
  std::ranges::sort(overrides, {}, &ConfigOverride::key);
  return overrides;
}

absl::Status ApplyOverrides(const std::vector<ConfigOverride>& overrides, ServerConfig& config) {
  std::vector<std::string> problems;
  for (const ConfigOverride& override : overrides) {
    if (!IsUtf8(override.value)) {
      problems.push_back(absl::StrCat(override.variable, ": ", override.key, " is not UTF-8"));
      continue;
    }
    const absl::Status status =
        ReadYamlNode(TreeOf(override), [&config](YamlMapping& root) { Describe(root, config); });
    if (!status.ok()) problems.push_back(absl::StrCat(override.variable, ": ", std::string(status.message())));
  }
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

}  // namespace longembed
