#include "model/manifest/manifest.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/manifest/sha256.h"
#include "model/yaml/yaml_mapping.h"

namespace longembed {
namespace {

constexpr int kMany = std::numeric_limits<int>::max();

void CheckTable(const YamlMapping& root, const ModelManifest& manifest) {
  if (manifest.plain_limit > manifest.position_rows) root.Fail("plain_limit", "exceeds position_rows");
  if (manifest.trained_window > manifest.position_rows / manifest.position_stride) {
    root.Fail("position_stride", "must leave trained_window positions within position_rows");
  }
}

void CheckRotary(const YamlMapping& root, const ModelManifest& manifest) {
  if (manifest.rotary_dim % 2 != 0 || manifest.rotary_dim > manifest.head_dim) {
    root.Fail("rotary_dim", "must be even, and at most head_dim");
  }
  if (manifest.rotary_base <= 1) root.Fail("rotary_base", "must be above 1");
}

void ReadRotaryScaling(YamlMapping& section, int pairs, RotaryScaling& scaling) {
  constexpr double kLeast = 1e-6, kMost = 1e6;
  section.Text("kind", scaling.kind);
  const bool longrope = scaling.kind == "longrope";
  if (!longrope && scaling.kind != "llama3" && scaling.kind != "yarn") {
    section.Fail("kind", "must be llama3, yarn or longrope");
  }
  section.Numbers("factors", scaling.factors, kLeast, kMost);
  section.Numbers("long_factors", scaling.long_factors, kLeast, kMost);
  section.Integer("long_from", scaling.long_from, 0, kMany);
  section.Number("amplitude", scaling.amplitude, 1e-3, 1e3);
  const auto count = static_cast<size_t>(pairs);
  if (scaling.factors.size() != count)
    section.Fail("factors", absl::StrCat("must hold ", pairs, " numbers, one per pair"));
  if (scaling.long_factors.size() != (longrope ? count : 0)) {
    section.Fail("long_factors", absl::StrCat("must hold ", pairs,
                                              " numbers, one per pair, if the kind is longrope, and none otherwise"));
  }
  if (longrope != (scaling.long_from > 0))
    section.Fail("long_from", "must be at least 1 if the kind is longrope, and absent otherwise");
}

void ReadPositions(YamlMapping& root, ModelManifest& manifest) {
  if (manifest.family == Family::kApe) {
    root.Require("position_rows");
    root.Integer("position_rows", manifest.position_rows, 1, kMany);
    root.Integer("position_stride", manifest.position_stride, 1, kMany);
    CheckTable(root, manifest);
  } else {
    for (const char* key : {"rotary_dim", "rotary_base"}) root.Require(key);
    // The exponent d / (d - 2) of NTK scaling is undefined for d = 2.
    root.Integer("rotary_dim", manifest.rotary_dim, 4, kMany);
    root.Number("rotary_base", manifest.rotary_base, 1, 1e12);
    root.Number("rotary_factor", manifest.rotary_factor, 1e-3, 1e3);
    CheckRotary(root, manifest);
    root.Section("rotary_scaling", [&manifest](YamlMapping& section) {
      ReadRotaryScaling(section, manifest.rotary_dim / 2, manifest.rotary_scaling.emplace());
    });
  }
}

void ReadSizes(YamlMapping& root, ModelManifest& manifest) {
  root.Integer("vocabulary_size", manifest.vocabulary_size, 1, kMany);
  root.Integer("hidden_size", manifest.hidden_size, 1, kMany);
  root.Integer("intermediate_size", manifest.intermediate_size, 1, kMany);
  root.Integer("layers", manifest.layers, 1, kMany);
  root.Integer("local_layers", manifest.local_layers, 0, manifest.layers);
  if (manifest.local_layers > 0) root.Require("local_window");
  root.Integer("local_window", manifest.local_window, 0, kMany);
  root.Integer("attention_heads", manifest.attention_heads, 1, kMany);
  root.Integer("head_dim", manifest.head_dim, 1, kMany);
  manifest.key_value_heads = manifest.attention_heads;
  root.Integer("key_value_heads", manifest.key_value_heads, 1, kMany);
  if (manifest.attention_heads % manifest.key_value_heads != 0) {
    root.Fail("key_value_heads", "must divide attention_heads");
  }
  root.Flag("gated", manifest.gated);
  root.Integer("trained_window", manifest.trained_window, 2, kMany);
  root.Text("trained_window_source", manifest.trained_window_source);
  root.Integer("plain_limit", manifest.plain_limit, 1, kMany);
  if (manifest.trained_window > manifest.plain_limit) root.Fail("trained_window", "exceeds plain_limit");
  manifest.vector_size = manifest.hidden_size;
  root.Integer("vector_size", manifest.vector_size, 1, kMany);
  root.Integers("trained_dimensions", manifest.trained_dimensions, 1, manifest.vector_size);
  auto& dimensions = manifest.trained_dimensions;
  std::sort(dimensions.begin(), dimensions.end());
  if (dimensions.empty() || dimensions.back() != manifest.vector_size) {
    root.Fail("trained_dimensions", "must hold sizes from 1 to the vectors' size, which must be one of them");
  }
}

void ReadTokensAndPrompts(YamlMapping& root, ModelManifest& manifest) {
  root.Section("special_tokens", [&manifest](YamlMapping& tokens) {
    tokens.Integers("prefix", manifest.special_prefix, 0, manifest.vocabulary_size - 1);
    tokens.Integers("suffix", manifest.special_suffix, 0, manifest.vocabulary_size - 1);
  });
  if (static_cast<int>(manifest.special_prefix.size() + manifest.special_suffix.size()) >= manifest.plain_limit) {
    root.Fail("special_tokens", "leave no room for a text within plain_limit");
  }
  root.Flag("add_eos_token", manifest.add_eos_token);
  root.Texts("prompts", manifest.prompts);
  root.Texts("input_types", manifest.input_types);
  for (const auto& [type, prompt] : manifest.input_types) {
    if (type != "QUERY" && type != "DOCUMENT") root.Fail("input_types", "has keys other than QUERY and DOCUMENT");
    if (!manifest.prompts.contains(prompt)) root.Fail("input_types", absl::StrCat("names no prompt: ", prompt));
  }
  root.Text("default_prompt_name", manifest.default_prompt_name);
  if (const std::string& name = manifest.default_prompt_name; !name.empty() && !manifest.prompts.contains(name)) {
    root.Fail("default_prompt_name", absl::StrCat("names no prompt: ", name));
  }
}

void ReadTokenVectors(YamlMapping& section, ModelManifest& manifest) {
  TokenVectorSettings& settings = manifest.token_vectors.emplace();
  const int last = manifest.vocabulary_size - 1;
  section.Require("query_tokens");
  section.Integer("query_tokens", settings.query_tokens, 1,
                  manifest.position_rows > 0 ? manifest.position_rows : kMany);
  section.Integer("expansion_tokens", settings.expansion_tokens, 0, settings.query_tokens);
  section.Integer("expansion_token", settings.expansion_token, 0, last);
  section.Flag("expansion_attended", settings.expansion_attended);
  section.Integers("skipped_tokens", settings.skipped_tokens, 0, last);
  std::sort(settings.skipped_tokens.begin(), settings.skipped_tokens.end());
  for (const char* type : {"QUERY", "DOCUMENT"}) {
    if (!manifest.input_types.contains(type)) {
      section.Fail("query_tokens", absl::StrCat("needs input_types with ", type));
    }
  }
}

void ReadHeads(YamlMapping& root, ModelManifest& manifest) {
  root.Choice("sparse_head", manifest.sparse_head,
              {{"SPLADE_MAX", SparseHeadKind::kSpladeMax},
               {"SPLADE_SUM", SparseHeadKind::kSpladeSum},
               {"TOKEN_WEIGHTS", SparseHeadKind::kTokenWeights}});
  if (manifest.sparse_head != SparseHeadKind::kNone && manifest.vector_size != manifest.hidden_size) {
    root.Fail("sparse_head", "takes hidden states, and Dense layers change them: vector_size must be hidden_size");
  }
  root.Section("token_vectors", [&manifest](YamlMapping& section) { ReadTokenVectors(section, manifest); });
  if (manifest.pooling == Pooling::kNone && manifest.sparse_head == SparseHeadKind::kNone &&
      !manifest.token_vectors.has_value()) {
    root.Fail("pooling", "is NONE, but the manifest has neither sparse_head nor token_vectors");
  }
}

// A file without a sum would be loaded whatever it holds.
void ReadFiles(YamlMapping& root, ModelManifest& manifest) {
  root.Texts("files", manifest.file_sha256);
  std::vector<const char*> needed{kEncoderFile, kTokenizerFile};
  if (manifest.sparse_head != SparseHeadKind::kNone) needed.push_back(kSparseHeadFile);
  for (const char* const file : needed) {
    if (!manifest.file_sha256.contains(file)) root.Fail("files", absl::StrCat("has no SHA-256 sum of ", file));
  }
}

void Read(YamlMapping& root, ModelManifest& manifest) {
  for (const char* key : {"format_version", "name", "architecture", "family", "pooling", "vocabulary_size",
                          "hidden_size", "intermediate_size", "layers", "attention_heads", "head_dim", "trained_window",
                          "plain_limit", "trained_dimensions", "special_tokens", "precision", "files"}) {
    root.Require(key);
  }
  int version = kManifestFormatVersion;
  root.Integer("format_version", version, kManifestFormatVersion, kManifestFormatVersion);
  root.Text("name", manifest.name);
  if (manifest.name.empty()) root.Fail("name", "is empty");
  root.Text("architecture", manifest.architecture);
  root.Choice("family", manifest.family, {{"APE", Family::kApe}, {"ROPE", Family::kRope}});
  root.Choice("pooling", manifest.pooling,
              {{"MEAN", Pooling::kMean}, {"CLS", Pooling::kCls}, {"LAST", Pooling::kLast}, {"NONE", Pooling::kNone}});
  ReadSizes(root, manifest);
  ReadPositions(root, manifest);
  ReadTokensAndPrompts(root, manifest);
  ReadHeads(root, manifest);
  root.Flag("causal", manifest.causal);
  root.Choice("similarity_function", manifest.similarity_function,
              {{"cosine", "cosine"}, {"dot", "dot"}, {"euclidean", "euclidean"}, {"manhattan", "manhattan"}});
  root.Text("recommended_extension", manifest.recommended_extension);
  root.Text("recommended_multi_vector_extension", manifest.recommended_multi_vector_extension);
  root.Texts("recommendation_evidence", manifest.recommendation_evidence);
  root.Text("precision", manifest.precision);
  root.Text("source", manifest.source);
  root.Text("license", manifest.license);
  ReadFiles(root, manifest);
  root.Ignore("exporter");  // Version of the exporter, for its own use.
}

}  // namespace

absl::StatusOr<ModelManifest> ParseManifest(const std::string& yaml, const std::string& origin) {
  ModelManifest manifest;
  const absl::Status status = ReadYaml(yaml, [&manifest](YamlMapping& root) { Read(root, manifest); });
  if (!status.ok()) return ModelDirectoryError(origin, std::string(status.message()));
  return manifest;
}

absl::StatusOr<ModelManifest> ReadManifest(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/", kManifestFile);
  std::ifstream file(path);
  std::stringstream text;
  if (!(text << file.rdbuf())) return ModelDirectoryError(path, "cannot be read; export a model with model/export");
  return ParseManifest(text.str(), path);
}

absl::Status VerifyFiles(const ModelManifest& manifest, const std::string& directory,
                         const std::function<void(double)>& on_progress) {
  double total = 0, done = 0;
  for (const auto& [file, sum] : manifest.file_sha256) {
    std::error_code missing;  // Sha256OfFile reports a missing file.
    const auto size = std::filesystem::file_size(absl::StrCat(directory, "/", file), missing);
    if (!missing) total += static_cast<double>(size);
  }
  const auto on_read = [&](int64_t bytes) {
    done += static_cast<double>(bytes);
    if (on_progress) on_progress(std::min(1.0, done / total));
  };
  for (const auto& [file, expected] : manifest.file_sha256) {
    if (file.find('/') != std::string::npos) return ModelDirectoryError(directory, "lists a file outside itself");
    const std::string path = absl::StrCat(directory, "/", file);
    const absl::StatusOr<std::string> actual = Sha256OfFile(path, on_read);
    if (!actual.ok()) return actual.status();
    if (*actual != expected) {
      return ModelDirectoryError(
          path, absl::StrCat("has SHA-256 ", *actual, ", the manifest says ", expected, "; export the model again"));
    }
  }
  return absl::OkStatus();
}

}  // namespace longembed
