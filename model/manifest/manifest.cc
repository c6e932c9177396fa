#include "model/manifest/manifest.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/errors/errors.h"
#include "model/manifest/sha256.h"

namespace longembed {
namespace {

// Reads keys of one mapping; throws YAML::Exception, which ParseManifest turns into a status, with the key in its
// message.
class Mapping {
 public:
  Mapping(const YAML::Node& node, std::string path) : node_(node), path_(std::move(path)) {
    if (!node.IsMap()) Fail("", "must be a mapping");
  }

  template <typename T>
  T Required(const std::string& key) {
    if (!Child(key).IsDefined()) Fail(key, "is missing");
    return Convert<T>(key);
  }

  template <typename T>
  T Optional(const std::string& key, T otherwise) {
    return Child(key).IsDefined() ? Convert<T>(key) : otherwise;
  }

  int Positive(const std::string& key) {
    const int value = Required<int>(key);
    if (value < 1) Fail(key, absl::StrCat("is ", value, "; it must be at least 1"));
    return value;
  }

  YAML::Node Child(const std::string& key) {
    read_.insert(key);
    return node_[key];
  }

  void RefuseUnknownKeys() const {
    for (const auto& entry : node_) {
      const auto key = entry.first.as<std::string>();
      if (!read_.contains(key)) Fail(key, absl::StrCat("is unknown; known here: ", absl::StrJoin(read_, ", ")));
    }
  }

  [[noreturn]] void Fail(const std::string& key, const std::string& what) const {
    throw YAML::Exception(node_.Mark(), absl::StrCat(path_, key, " ", what));
  }

 private:
  template <typename T>
  T Convert(const std::string& key) {
    try {
      return node_[key].as<T>();
    } catch (const YAML::Exception&) {
      Fail(key, "has a value of the wrong type");
    }
  }

  const YAML::Node node_;
  const std::string path_;
  std::set<std::string> read_;
};

template <typename Enum>
Enum ReadEnum(Mapping& root, const std::string& key, const std::map<std::string, Enum>& values) {
  const auto text = root.Required<std::string>(key);
  const auto found = values.find(text);
  if (found == values.end()) {
    std::vector<std::string> names;
    names.reserve(values.size());
    for (const auto& [name, value] : values) names.push_back(name);
    root.Fail(key, absl::StrCat("is ", text, "; it must be one of ", absl::StrJoin(names, ", ")));
  }
  return found->second;
}

void ReadTable(Mapping& root, ModelManifest& manifest) {
  manifest.position_rows = root.Positive("position_rows");
  manifest.position_stride = root.Optional("position_stride", 1);
  if (manifest.plain_limit > manifest.position_rows) root.Fail("plain_limit", "exceeds position_rows");
  if (manifest.position_stride < 1 || manifest.trained_window > manifest.position_rows / manifest.position_stride) {
    root.Fail("position_stride", "must be at least 1 and leave trained_window positions within position_rows");
  }
}

void ReadRotary(Mapping& root, ModelManifest& manifest) {
  manifest.rotary_dim = root.Positive("rotary_dim");
  // At 2 the exponent d / (d - 2) of NTK scaling has no value.
  if (manifest.rotary_dim < 4 || manifest.rotary_dim % 2 != 0 || manifest.rotary_dim > manifest.head_dim) {
    root.Fail("rotary_dim", "must be even, at least 4 and at most head_dim");
  }
  manifest.rotary_base = root.Required<double>("rotary_base");
  if (!(manifest.rotary_base > 1 && manifest.rotary_base <= 1e12))
    root.Fail("rotary_base", "must be above 1, at most 1e12");
}

void ReadSizes(Mapping& root, ModelManifest& manifest) {
  manifest.vocabulary_size = root.Positive("vocabulary_size");
  manifest.hidden_size = root.Positive("hidden_size");
  manifest.intermediate_size = root.Positive("intermediate_size");
  manifest.layers = root.Positive("layers");
  manifest.attention_heads = root.Positive("attention_heads");
  manifest.head_dim = root.Positive("head_dim");
  manifest.key_value_heads = root.Optional("key_value_heads", manifest.attention_heads);
  if (manifest.key_value_heads < 1 || manifest.attention_heads % manifest.key_value_heads != 0) {
    root.Fail("key_value_heads", "must divide attention_heads");
  }
  manifest.gated = root.Optional("gated", false);
  manifest.trained_window = root.Positive("trained_window");
  manifest.plain_limit = root.Positive("plain_limit");
  manifest.trained_dimensions = root.Required<std::vector<int>>("trained_dimensions");
  if (manifest.trained_window < 2) root.Fail("trained_window", "must be at least 2");
  if (manifest.trained_window > manifest.plain_limit) root.Fail("trained_window", "exceeds plain_limit");
  manifest.family == Family::kApe ? ReadTable(root, manifest) : ReadRotary(root, manifest);
  auto& dimensions = manifest.trained_dimensions;
  std::sort(dimensions.begin(), dimensions.end());
  if (dimensions.empty() || dimensions.front() < 1 || dimensions.back() != manifest.hidden_size) {
    root.Fail("trained_dimensions", "must hold sizes from 1 to hidden_size, hidden_size among them");
  }
}

std::vector<int32_t> ReadIds(Mapping& tokens, const std::string& key, int vocabulary_size) {
  auto ids = tokens.Optional<std::vector<int32_t>>(key, {});
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocabulary_size) tokens.Fail(key, absl::StrCat("holds ", id, ", beyond the vocabulary"));
  }
  return ids;
}

void ReadTextSide(Mapping& root, ModelManifest& manifest) {
  Mapping tokens(root.Child("special_tokens"), "special_tokens.");
  manifest.special_prefix = ReadIds(tokens, "prefix", manifest.vocabulary_size);
  manifest.special_suffix = ReadIds(tokens, "suffix", manifest.vocabulary_size);
  tokens.RefuseUnknownKeys();
  if (static_cast<int>(manifest.special_prefix.size() + manifest.special_suffix.size()) >= manifest.plain_limit) {
    root.Fail("special_tokens", "leave no room for a text within plain_limit");
  }
  manifest.prompts = root.Optional<std::map<std::string, std::string>>("prompts", {});
  manifest.input_types = root.Optional<std::map<std::string, std::string>>("input_types", {});
  for (const auto& [type, prompt] : manifest.input_types) {
    if (type != "QUERY" && type != "DOCUMENT") root.Fail("input_types", "has keys other than QUERY and DOCUMENT");
    if (!manifest.prompts.contains(prompt)) root.Fail("input_types", absl::StrCat("names no prompt: ", prompt));
  }
}

void ReadRecommendations(Mapping& root, ModelManifest& manifest) {
  manifest.recommended_extension = root.Optional<std::string>("recommended_extension", "");
  manifest.recommended_multi_vector_extension = root.Optional<std::string>("recommended_multi_vector_extension", "");
  manifest.recommendation_evidence = root.Optional<std::map<std::string, std::string>>("recommendation_evidence", {});
}

ModelManifest Read(const YAML::Node& document) {
  Mapping root(document, "");
  const int version = root.Required<int>("format_version");
  if (version != kManifestFormatVersion) {
    root.Fail("format_version", absl::StrCat("is ", version, "; this build reads ", kManifestFormatVersion));
  }
  ModelManifest manifest;
  manifest.name = root.Required<std::string>("name");
  manifest.architecture = root.Required<std::string>("architecture");
  manifest.family = ReadEnum<Family>(root, "family", {{"APE", Family::kApe}, {"ROPE", Family::kRope}});
  manifest.pooling =
      ReadEnum<Pooling>(root, "pooling", {{"MEAN", Pooling::kMean}, {"CLS", Pooling::kCls}, {"LAST", Pooling::kLast}});
  ReadSizes(root, manifest);
  ReadTextSide(root, manifest);
  manifest.causal = root.Optional("causal", false);
  ReadRecommendations(root, manifest);
  manifest.precision = root.Required<std::string>("precision");
  manifest.source = root.Optional<std::string>("source", "");
  manifest.licence = root.Optional<std::string>("licence", "");
  manifest.file_sha256 = root.Required<std::map<std::string, std::string>>("files");
  root.Child("exporter");  // For the exporter's own use: which version wrote this.
  root.RefuseUnknownKeys();
  return manifest;
}

}  // namespace

absl::StatusOr<ModelManifest> ParseManifest(const std::string& yaml, const std::string& origin) {
  try {
    return Read(YAML::Load(yaml));
  } catch (const std::exception& error) {
    return ModelDirectoryError(origin, error.what());
  }
}

absl::StatusOr<ModelManifest> ReadManifest(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/", kManifestFile);
  std::ifstream file(path);
  std::stringstream text;
  if (!(text << file.rdbuf())) return ModelDirectoryError(path, "cannot be read; export a model with model/export");
  return ParseManifest(text.str(), path);
}

absl::Status VerifyFiles(const ModelManifest& manifest, const std::string& directory) {
  for (const auto& [file, expected] : manifest.file_sha256) {
    if (file.find('/') != std::string::npos) return ModelDirectoryError(directory, "lists a file outside itself");
    const std::string path = absl::StrCat(directory, "/", file);
    const absl::StatusOr<std::string> actual = Sha256OfFile(path);
    if (!actual.ok()) return actual.status();
    if (*actual != expected) {
      return ModelDirectoryError(
          path, absl::StrCat("has SHA-256 ", *actual, ", the manifest says ", expected, "; export the model again"));
    }
  }
  return absl::OkStatus();
}

}  // namespace longembed
