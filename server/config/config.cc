#include "server/config/config.h"

#include <yaml-cpp/yaml.h>

#include <exception>
#include <filesystem>
#include <limits>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/files/watched_files.h"

namespace longembed {
namespace {

// gRPC takes milliseconds in an int; and ParseDuration takes "inf".
constexpr absl::Duration kLongest = absl::Hours(480);

// Reads keys of one mapping into fields that hold their defaults; throws YAML::Exception with line and key.
class Mapping {
 public:
  Mapping(const YAML::Node& node, std::string path) : node_(node), path_(std::move(path)) {
    if (!node.IsMap()) Fail(node.Mark(), "", "must be a mapping");
  }

  void Read(const std::string& key, std::string& field) { ReadAs(key, field, "a string"); }
  void Read(const std::string& key, bool& field) { ReadAs(key, field, "true or false"); }

  template <typename Integer>
  void ReadInteger(const std::string& key, Integer& field, int64_t least, int64_t most) {
    const YAML::Node node = Child(key);
    if (!node.IsDefined()) return;
    int64_t value = 0;
    if (!YAML::convert<int64_t>::decode(node, value) || value < least || value > most) {
      Fail(node.Mark(), key, absl::StrCat("must be a whole number from ", least, " to ", most));
    }
    field = static_cast<Integer>(value);
  }

  template <typename Choice>
  void ReadChoice(const std::string& key, Choice& field, const std::vector<std::pair<std::string, Choice>>& choices) {
    const YAML::Node node = Child(key);
    if (!node.IsDefined()) return;
    std::vector<std::string> names;
    for (const auto& [name, choice] : choices) {
      names.push_back(name);
      if (!node.IsScalar() || node.Scalar() != name) continue;
      field = choice;
      return;
    }
    Fail(node.Mark(), key, absl::StrCat("must be one of ", absl::StrJoin(names, ", ")));
  }

  void Read(const std::string& key, absl::Duration& field, absl::Duration least = absl::ZeroDuration(),
            absl::Duration most = kLongest) {
    const YAML::Node node = Child(key);
    if (!node.IsDefined()) return;
    const bool parsed = node.IsScalar() && absl::ParseDuration(node.Scalar(), &field);
    if (!parsed || field < absl::ZeroDuration()) Fail(node.Mark(), key, "must be a duration such as 500ms, 10s or 2m");
    if (field < least || field > most) {
      Fail(node.Mark(), key,
           absl::StrCat("must be from ", absl::FormatDuration(least), " to ", absl::FormatDuration(most)));
    }
  }

  YAML::Node Child(const std::string& key) {
    read_.insert(key);
    return node_[key];
  }

  // A mapping below this one; absent = all of its defaults.
  template <typename Reader>
  void ReadMapping(const std::string& key, Reader reader) {
    const YAML::Node node = Child(key);
    if (!node.IsDefined()) return;
    Mapping child(node, absl::StrCat(path_, key, "."));
    reader(child);
    child.RefuseUnknownKeys();
  }

  void RefuseUnknownKeys() const {
    for (const auto& entry : node_) {
      const auto key = entry.first.as<std::string>();
      if (!read_.contains(key)) {
        Fail(entry.first.Mark(), key, absl::StrCat("is unknown; known here: ", absl::StrJoin(read_, ", ")));
      }
    }
  }

  [[noreturn]] void Fail(const YAML::Mark& mark, const std::string& key, const std::string& what) const {
    throw YAML::Exception(mark, absl::StrCat(path_, key, " ", what));
  }

 private:
  template <typename T>
  void ReadAs(const std::string& key, T& field, const char* kind) {
    const YAML::Node node = Child(key);
    if (!node.IsDefined()) return;
    if (!node.IsScalar() || !YAML::convert<T>::decode(node, field)) {
      Fail(node.Mark(), key, absl::StrCat("must be ", kind));
    }
  }

  const YAML::Node node_;
  const std::string path_;
  std::set<std::string> read_;
};

constexpr int64_t kMany = std::numeric_limits<int32_t>::max();

ModelConfig ReadModel(const YAML::Node& node, const std::string& path, const std::filesystem::path& directory) {
  Mapping mapping(node, path);
  ModelConfig model;
  mapping.Read("path", model.path);
  if (model.path.empty()) mapping.Fail(node.Mark(), "path", "is missing");
  model.path = (directory / model.path).lexically_normal().string();
  mapping.Read("name", model.name);
  mapping.Read("device", model.device);
  mapping.ReadChoice("precision", model.precision,
                     {{"fp32", Precision::kFloat32},
                      {"bf16", Precision::kBfloat16},
                      {"fp16", Precision::kFloat16},
                      {"int8", Precision::kInt8}});
  mapping.ReadChoice("engine", model.engine, {{"auto", Engine::kAuto}, {"torchscript", Engine::kTorchScript}});
  mapping.ReadInteger("max_batch_tokens", model.max_batch_tokens, 0, kMany);
  mapping.ReadInteger("max_batch_sequences", model.max_batch_sequences, 1, kMany);
  mapping.ReadInteger("max_queued_tokens", model.max_queued_tokens, 1, kMany);
  mapping.RefuseUnknownKeys();
  return model;
}

void ReadModels(Mapping& root, ServerConfig& config, const std::string& directory) {
  const YAML::Node models = root.Child("models");
  if (!models.IsDefined() || !models.IsSequence() || models.size() == 0) {
    root.Fail(models.IsDefined() ? models.Mark() : YAML::Mark(), "models", "must be a list of at least one model");
  }
  for (size_t i = 0; i < models.size(); ++i) {
    config.models.push_back(ReadModel(models[i], absl::StrCat("models[", i, "]."), directory));
  }
}

// As JSON whose scalars are all strings, which protobuf's JSON reader turns into what each field holds. An alias may
// stand within the mapping that it names, or repeat one many times over; so depth and size are bounded.
void AppendJson(const YAML::Node& node, int depth, std::string& json) {
  constexpr int kMaxDepth = 8;  // An extension has 2 levels.
  constexpr size_t kMaxBytes = 1 << 16;
  if (depth > kMaxDepth || json.size() > kMaxBytes) {
    throw YAML::Exception(node.Mark(), "an extension of profiles is nested too deeply or too large");
  }
  if (!node.IsMap()) {
    absl::StrAppend(&json, "\"", absl::Utf8SafeCEscape(node.as<std::string>()), "\"");
    return;
  }
  const char* separator = "{";
  for (const auto& entry : node) {
    json += separator;
    AppendJson(entry.first, depth + 1, json);
    json += ':';
    AppendJson(entry.second, depth + 1, json);
    separator = ",";
  }
  json += node.size() == 0 ? "{}" : "}";
}

void ReadProfiles(Mapping& root, ServerConfig& config) {
  const YAML::Node profiles = root.Child("profiles");
  if (!profiles.IsDefined()) return;
  if (!profiles.IsMap()) root.Fail(profiles.Mark(), "profiles", "must be a mapping of names to extensions");
  for (const auto& entry : profiles) {
    const auto name = entry.first.as<std::string>();
    if (name.empty() || !entry.second.IsMap()) {
      root.Fail(entry.first.Mark(), absl::StrCat("profiles.", name),
                "must be a mapping such as {windows: {tokens: 256}}");
    }
    std::string json;
    AppendJson(entry.second, 0, json);
    config.profiles.emplace(name, std::move(json));
  }
}

void ReadLog(Mapping& mapping, LogConfig& log) {
  mapping.ReadChoice("level", log.level,
                     {{"debug", LogLevel::kDebug},
                      {"info", LogLevel::kInfo},
                      {"warning", LogLevel::kWarning},
                      {"error", LogLevel::kError}});
  mapping.ReadChoice("format", log.format, {{"json", LogFormat::kJson}, {"text", LogFormat::kText}});
}

void ReadLimits(Mapping& mapping, LimitsConfig& limits) {
  constexpr int64_t kGibibyte = int64_t{1} << 30;
  mapping.ReadInteger("max_request_bytes", limits.max_request_bytes, 1, kGibibyte);
  mapping.ReadInteger("max_response_bytes", limits.max_response_bytes, 1, kGibibyte);
  mapping.ReadInteger("max_inputs_per_call", limits.max_inputs_per_call, 1, kMany);
  mapping.ReadInteger("max_tokens_per_input", limits.max_tokens_per_input, 1, kMany);
  mapping.ReadInteger("max_tokens_per_sequence", limits.max_tokens_per_sequence, 1, kMany);
  mapping.ReadInteger("max_run_tokens_per_call", limits.max_run_tokens_per_call, 1, kMany);
  mapping.ReadInteger("max_vectors_per_call", limits.max_vectors_per_call, 1, kMany);
  mapping.ReadInteger("max_prompt_bytes", limits.max_prompt_bytes, 0, kMany);
  constexpr absl::Duration kLeastWait = absl::Milliseconds(100);  // With none, calls would be charged nothing.
  mapping.Read("max_queue_wait", limits.max_queue_wait, kLeastWait);
  mapping.Read("max_bulk_queue_wait", limits.max_bulk_queue_wait, kLeastWait);
  mapping.ReadInteger("max_pending_bytes", limits.max_pending_bytes, 1, 1024 * kGibibyte);
}

void ReadConnections(Mapping& mapping, ConnectionsConfig& connections) {
  constexpr absl::Duration kLeast = absl::Milliseconds(1);
  mapping.ReadInteger("max", connections.max, 1, 1 << 20);
  mapping.ReadInteger("max_streams", connections.max_streams, 1, kMany);
  mapping.Read("max_age", connections.max_age);
  mapping.Read("max_idle", connections.max_idle);
  mapping.Read("handshake_timeout", connections.handshake_timeout, kLeast);
  mapping.Read("keepalive", connections.keepalive, kLeast);
}

// Relative paths start from the config file's folder.
void ReadPath(Mapping& mapping, const std::string& key, std::string& path, const std::filesystem::path& directory) {
  mapping.Read(key, path);
  if (!path.empty()) path = (directory / path).lexically_normal().string();
}

void ReadSecurity(Mapping& root, ServerConfig& config, const std::filesystem::path& directory) {
  TlsConfig& tls = config.tls;
  root.ReadMapping("tls", [&tls, &directory](Mapping& mapping) {
    ReadPath(mapping, "certificate", tls.certificate, directory);
    ReadPath(mapping, "key", tls.key, directory);
    ReadPath(mapping, "client_ca", tls.client_ca, directory);
  });
  ReadPath(root, "api_keys", config.api_keys, directory);
  if (tls.certificate.empty() != tls.key.empty()) {
    root.Fail(root.Child("tls").Mark(), "tls", "needs both certificate and key, or neither");
  }
  if (!tls.client_ca.empty() && !tls.enabled()) {
    root.Fail(root.Child("tls").Mark(), "tls.client_ca", "needs tls.certificate and tls.key");
  }
  if (config.api_keys.empty() || tls.enabled()) return;
  for (const auto& [key, on] : {std::pair{"reflection", config.reflection}, std::pair{"channelz", config.channelz}}) {
    if (!on) continue;
    root.Fail(root.Child("api_keys").Mark(), key,
              "must be false with api_keys on a plaintext port: gRPC cannot ask for keys there; with tls it can");
  }
}

ServerConfig Read(const YAML::Node& document, const std::string& directory) {
  Mapping root(document, "");
  ServerConfig config;
  root.Read("listen", config.listen);
  root.Read("health_listen", config.health_listen);
  root.Read("metrics_listen", config.metrics_listen);
  root.Read("reflection", config.reflection);
  root.Read("channelz", config.channelz);
  root.ReadMapping("log", [&config](Mapping& log) { ReadLog(log, config.log); });
  ReadSecurity(root, config, directory);
  root.ReadMapping("connections", [&config](Mapping& mapping) { ReadConnections(mapping, config.connections); });
  root.ReadInteger("compute_threads", config.compute_threads, 0, 1024);
  root.ReadInteger("cuda_streams", config.cuda_streams, 1, 64);
  root.ReadInteger("tokenization_threads", config.tokenization_threads, 0, 256);
  root.ReadMapping("drain", [&config](Mapping& drain) {
    drain.Read("delay", config.drain_delay);
    drain.Read("timeout", config.drain_timeout);
  });
  root.ReadMapping("limits", [&config](Mapping& limits) { ReadLimits(limits, config.limits); });
  root.ReadMapping("tei", [&tei = config.tei](Mapping& mapping) {
    mapping.Read("model", tei.model);
    mapping.Read("default_prompt", tei.default_prompt);
  });
  ReadProfiles(root, config);
  ReadModels(root, config, directory);
  root.RefuseUnknownKeys();
  return config;
}

}  // namespace

absl::StatusOr<ServerConfig> ParseConfig(const std::string& yaml, const std::string& directory) {
  try {
    return Read(YAML::Load(yaml), directory);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

absl::StatusOr<ServerConfig> ReadConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadWholeFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<ServerConfig> config = ParseConfig(*text, std::filesystem::path(path).parent_path().string());
  if (!config.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", config.status().message()));
  return config;
}

}  // namespace longembed
