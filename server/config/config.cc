#include "server/config/config.h"

#include <filesystem>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/yaml/yaml_mapping.h"
#include "server/config/describe_config.h"
#include "server/files/watched_files.h"

namespace longembed {
namespace {

// As JSON whose scalars are all strings, which protobuf's JSON reader turns into what each field holds.
void AppendJson(YamlMapping& mapping, std::string& json) {
  json += "{";
  const char* separator = "";
  for (const auto& [key, value] : mapping.node().entries) {
    absl::StrAppend(&json, separator, "\"", absl::Utf8SafeCEscape(key.scalar), "\":");
    separator = ",";
    if (value.kind == YamlNode::Kind::kMapping) {
      mapping.Section(key.scalar, [&json](YamlMapping& below) { AppendJson(below, json); });
    } else {
      std::string text;
      mapping.Text(key.scalar, text);
      absl::StrAppend(&json, "\"", absl::Utf8SafeCEscape(text), "\"");
    }
  }
  json += "}";
}

void ReadProfiles(YamlMapping& profiles, ServerConfig& config) {
  for (const auto& [name, extension] : profiles.node().entries) {
    const std::string& key = name.scalar;
    if (key.empty() || extension.kind != YamlNode::Kind::kMapping) {
      profiles.Fail(name, key, "must be a mapping such as {windows: {tokens: 256}}");
    }
    profiles.Section(key, [&](YamlMapping& mapping) { AppendJson(mapping, config.profiles[key]); });
  }
}

void ReadModels(YamlMapping& root, ServerConfig& config) {
  root.Require("models");
  root.Sections("models", [&config](YamlMapping& mapping) {
    mapping.Require("path");
    Describe(mapping, config.models.emplace_back());
    if (config.models.back().path.empty()) mapping.Fail("path", "is empty");
  });
  if (config.models.empty()) root.Fail("models", "must be a list of at least one model");
}

void CheckSecurity(const YamlMapping& root, const ServerConfig& config) {
  const TlsConfig& tls = config.tls;
  if (tls.certificate.empty() != tls.key.empty()) root.Fail("tls", "needs both certificate and key, or neither");
  if (!tls.client_ca.empty() && !tls.enabled()) root.Fail("tls", "client_ca needs tls.certificate and tls.key");
  if (config.api_keys.empty() || tls.enabled()) return;
  for (const auto& [key, on] : {std::pair{"reflection", config.reflection}, std::pair{"channelz", config.channelz}}) {
    if (!on) continue;
    root.Fail(key, "must be false with api_keys on a plaintext port: gRPC cannot ask for keys there; with tls it can");
  }
}

void CheckTracing(const YamlMapping& root, const TracingConfig& tracing) {
  if (tracing.endpoint.empty()) return;
  const absl::Status status = ParseOtlpEndpoint(tracing.endpoint).status();
  if (!status.ok()) root.Fail("tracing", absl::StrCat("endpoint: ", std::string(status.message())));
}

// Relative paths start from the config file's folder.
void ResolvePaths(ServerConfig& config, const std::filesystem::path& directory) {
  std::vector<std::string*> paths{&config.tls.certificate, &config.tls.key, &config.tls.client_ca, &config.api_keys};
  for (ModelConfig& model : config.models) paths.push_back(&model.path);
  for (std::string* const path : paths) {
    if (!path->empty()) *path = (directory / *path).lexically_normal().string();
  }
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

absl::StatusOr<ServerConfig> ParseConfig(const std::string& yaml, const std::string& directory) {
  ServerConfig config;
  const absl::Status status = ReadYaml(yaml, [&config](YamlMapping& root) {
    Describe(root, config);
    root.Section("profiles", [&config](YamlMapping& profiles) { ReadProfiles(profiles, config); });
    ReadModels(root, config);
    CheckSecurity(root, config);
    CheckTracing(root, config.tracing);
  });
  if (!status.ok()) return status;
  ResolvePaths(config, directory);
  return config;
}

absl::StatusOr<ServerConfig> ReadConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWholeFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<ServerConfig> config = ParseConfig(*text, std::filesystem::path(path).parent_path().string());
  if (!config.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", config.status().message()));
  return config;
}

}  // namespace longembed
