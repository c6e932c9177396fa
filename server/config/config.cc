#include "server/config/config.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/yaml/yaml_mapping.h"
#include "server/config/describe_config.h"
#include "server/config/overrides.h"
#include "system/watched_files.h"

namespace longembed {
namespace {

void ReadProfiles(YamlMapping& profiles, ServerConfig& config) {
  for (const auto& [name, extension] : profiles.node().entries) {
    const std::string& key = name.scalar;
    if (key.empty() || extension.kind != YamlNode::Kind::kMapping) {
      profiles.Fail(name, key, "must be a mapping such as {windows: {tokens: 256}}");
    }
    profiles.Json(key, config.profiles[key]);
  }
}

void CheckTei(const YamlMapping& root, const ServerConfig& config) {
  const TeiConfig& tei = config.tei;
  if (tei.profile.empty()) return;
  if (tei.has_extension()) root.Fail("tei", "has both profile and extension; leave one of them out");
  if (config.profiles.contains(tei.profile)) return;
  std::vector<std::string> names;
  for (const auto& [name, extension] : config.profiles) names.push_back(name);
  root.Fail("tei", absl::StrCat("has the profile \"", tei.profile, "\", which is not among profiles: ",
                                names.empty() ? "there are none" : absl::StrJoin(names, ", ")));
}

void ReadModels(YamlMapping& root, ServerConfig& config) {
  root.Require("models");
  root.Sections("models", [&config](YamlMapping& mapping) {
    mapping.Require("path");
    Describe(mapping, config.models.emplace_back());
    if (config.models.back().path.empty() && !mapping.failed()) mapping.Fail("path", "is empty");
  });
  if (config.models.empty() && !root.failed()) root.Fail("models", "must be a list of at least one model");
}

void CheckSecurity(const YamlMapping& root, const ServerConfig& config) {
  const TlsConfig& tls = config.tls;
  if (tls.certificate.empty() != tls.key.empty()) root.Fail("tls", "needs both certificate and key, or neither");
  if (!tls.client_ca.empty() && !tls.enabled()) root.Fail("tls", "client_ca needs tls.certificate and tls.key");
  if (config.channelz && !config.api_keys.empty() && !tls.enabled()) {
    root.Fail("channelz",
              "must be false with api_keys on a plaintext port: gRPC cannot ask for keys there; with tls it can");
  }
}

// Returns whether a browser may send the text as its Origin header: SCHEME://HOST or SCHEME://HOST:PORT, in lower case.
bool IsOrigin(std::string_view text) {
  const size_t end = text.find("://");
  if (end == 0 || end == std::string_view::npos) return false;
  const auto is_plain = [](char c) { return absl::ascii_isdigit(c) || absl::ascii_islower(c) || c == '.' || c == '-'; };
  const auto in_scheme = [&](char c) { return is_plain(c) || c == '+'; };
  const auto in_host = [&](char c) { return is_plain(c) || c == '_' || c == ':' || c == '[' || c == ']'; };
  const std::string_view scheme = text.substr(0, end), host = text.substr(end + 3);
  return std::ranges::all_of(scheme, in_scheme) && !host.empty() && std::ranges::all_of(host, in_host);
}

void CheckHttp(const YamlMapping& root, const HttpConfig& http) {
  const std::string& origin = http.allowed_origin;
  if (origin.empty() || origin == "*" || IsOrigin(origin)) return;
  root.Fail("http", absl::StrCat("allowed_origin is \"", absl::Utf8SafeCEscape(origin),
                                 "\", which is not an origin in the form that browsers send; write ",
                                 "SCHEME://HOST or SCHEME://HOST:PORT, without a slash at its end, or *"));
}

void CheckTracing(const YamlMapping& root, const TracingConfig& tracing) {
  if (tracing.endpoint.empty()) return;
  const absl::Status status = ParseOtlpEndpoint(tracing.endpoint).status();
  if (!status.ok()) root.Fail("tracing", absl::StrCat("endpoint: ", std::string(status.message())));
}

// Resolves relative paths, which start from the config file's folder.
void ResolvePaths(ServerConfig& config, const std::filesystem::path& directory) {
  std::vector<std::string*> paths{&config.tls.certificate, &config.tls.key, &config.tls.client_ca, &config.api_keys};
  for (ModelConfig& model : config.models) paths.push_back(&model.path);
  for (std::string* const path : paths) {
    if (!path->empty()) *path = (directory / *path).lexically_normal().string();
  }
}

// Joins the problems of both statuses, one a line.
absl::Status Both(const absl::Status& first, const absl::Status& second) {
  const bool two = !first.ok() && !second.ok();
  return absl::InvalidArgumentError(absl::StrCat(first.message(), two ? "\n" : "", second.message()));
}

// Lists keys and values instead of reading them.
class Lister {
 public:
  Lister(std::string path, std::map<std::string, std::string>& values) : path_(std::move(path)), values_(values) {}

  template <typename Value>
  void Integer(const std::string& key, const Value& value, int64_t, int64_t) {
    Put(key, absl::StrCat(value));
  }
  void Number(const std::string& key, double value, double, double) { Put(key, absl::StrCat(value)); }
  void Flag(const std::string& key, bool value) { Put(key, value ? "true" : "false"); }
  void Text(const std::string& key, const std::string& value) { Put(key, value); }
  void Json(const std::string& key, const std::string& value) { Put(key, value); }
  void Duration(const std::string& key, absl::Duration value, const DurationRange&) {
    Put(key, absl::FormatDuration(value));
  }
  template <typename Value>
  void Choice(const std::string& key, Value value, const std::vector<std::pair<const char*, Value>>& choices) {
    for (const auto& [name, choice] : choices) {
      if (choice == value) Put(key, name);
    }
  }
  void Section(const std::string& key, const std::function<void(Lister&)>& read) {
    Lister below(absl::StrCat(path_, key, "."), values_);
    read(below);
  }

 private:
  void Put(const std::string& key, const std::string& value) { values_[path_ + key] = value; }

  const std::string path_;
  std::map<std::string, std::string>& values_;
};

}  // namespace

std::map<std::string, std::string> ConfigValues(const ServerConfig& config) {
  std::map<std::string, std::string> values;
  ServerConfig copy = config;
  Lister root("", values);
  Describe(root, copy);
  for (const auto& [name, extension] : copy.profiles) values["profiles." + name] = extension;
  for (size_t i = 0; i < copy.models.size(); ++i) {
    Lister model(absl::StrCat("models[", i, "]."), values);
    Describe(model, copy.models[i]);
  }
  return values;
}

absl::StatusOr<ServerConfig> ParseConfig(const std::string& yaml, const std::string& directory,
                                         const std::vector<std::string>& environment) {
  ServerConfig config, scratch;
  absl::StatusOr<std::vector<ConfigOverride>> overrides = FindOverrides(environment);
  absl::Status overridden = overrides.status();
  // Also applied to `scratch`, so that problems of the overrides are reported even if the file is invalid.
  if (overrides.ok()) overridden = ApplyOverrides(*overrides, scratch);
  const absl::Status read = ReadYaml(
      yaml,
      [&](YamlMapping& root) {
        Describe(root, config);
        root.Section("profiles", [&config](YamlMapping& profiles) { ReadProfiles(profiles, config); });
        ReadModels(root, config);
        if (overridden.ok()) overridden = ApplyOverrides(*overrides, config);
        if (overridden.ok() && !root.failed()) {
          CheckTei(root, config);
          CheckSecurity(root, config);
          CheckTracing(root, config.tracing);
          CheckHttp(root, config.http);
        }
      },
      YamlWords::kQuoted, YamlProblems::kAll);
  if (!read.ok() || !overridden.ok()) return Both(read, overridden);
  for (const ConfigOverride& override : *overrides) config.overrides.push_back(override.variable);
  ResolvePaths(config, directory);
  return config;
}

absl::StatusOr<ServerConfig> ReadConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWholeFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<ServerConfig> config =
      ParseConfig(*text, std::filesystem::path(path).parent_path().string(), ProcessEnvironment());
  if (config.ok()) return config;
  std::vector<std::string> problems = absl::StrSplit(config.status().message(), '\n');
  for (std::string& problem : problems) {
    if (absl::StartsWith(problem, "line ")) problem = absl::StrCat(path, ": ", problem);
  }
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

LogFormat FindLogFormat(const std::string& path) {
  ServerConfig config;
  // A file that is not regular, such as a pipe, can be read only once.
  std::error_code error;
  const bool readable = std::filesystem::is_regular_file(path, error);
  const absl::StatusOr<std::string> text = readable ? ReadWholeFile(path) : "";
  const absl::StatusOr<YamlNode> root = text.ok() ? ParseYaml(*text) : text.status();
  const YamlNode* const log = root.ok() ? root->Find("log") : nullptr;
  const YamlNode* const format = log != nullptr ? log->Find("format") : nullptr;
  if (format != nullptr && format->scalar == "text") config.log.format = LogFormat::kText;
  const char* const variable = std::getenv("LONGEMBED__LOG__FORMAT");
  if (variable != nullptr) {
    static_cast<void>(ApplyOverrides({{.key = "log.format", .value = variable}}, config));
  }
  return config.log.format;
}

}  // namespace longembed
