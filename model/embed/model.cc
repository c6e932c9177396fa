#include "model/embed/model.h"

#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/hf_tokenizer.h"

namespace longembed {

absl::StatusOr<std::unique_ptr<const Model>> LoadModel(const std::string& directory,
                                                       const std::function<void(double)>& on_progress) {
  absl::StatusOr<ModelManifest> manifest = ReadManifest(directory);
  if (!manifest.ok()) return manifest.status();
  // Loads the tokenizer in parallel with verifying the files. Each uses one core and takes a large part of a small
  // model's start.
  auto loaded = std::async(std::launch::async, [&] { return LoadTokenizer(directory, *manifest); });
  const absl::Status verified = VerifyFiles(*manifest, directory, on_progress);
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer = loaded.get();
  if (!verified.ok()) return verified;
  if (!tokenizer.ok()) return tokenizer.status();
  return std::make_unique<const Model>(Model{.manifest = *std::move(manifest), .tokenizer = *std::move(tokenizer)});
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> LoadTokenizer(const std::string& directory,
                                                               const ModelManifest& manifest) {
  const std::string path = absl::StrCat(directory, "/", kTokenizerFile);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadHuggingFaceTokenizer(path);
  if (!tokenizer.ok()) return tokenizer.status();
  if ((*tokenizer)->vocabulary_size() > manifest.vocabulary_size) {
    return ModelDirectoryError(path, absl::StrCat("has ", (*tokenizer)->vocabulary_size(), " entries, the model only ",
                                                  manifest.vocabulary_size));
  }
  return *std::move(tokenizer);
}

}  // namespace longembed
