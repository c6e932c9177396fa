#include "model/embed/model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/hf_tokenizer.h"

namespace longembed {

absl::StatusOr<std::unique_ptr<const Model>> LoadModel(const std::string& directory) {
  absl::StatusOr<ModelManifest> manifest = ReadManifest(directory);
  if (!manifest.ok()) return manifest.status();
  if (const absl::Status status = VerifyFiles(*manifest, directory); !status.ok()) return status;
  const std::string path = absl::StrCat(directory, "/", kTokenizerFile);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadHuggingFaceTokenizer(path);
  if (!tokenizer.ok()) return tokenizer.status();
  if ((*tokenizer)->vocabulary_size() > manifest->vocabulary_size) {
    return ModelDirectoryError(path, absl::StrCat("has ", (*tokenizer)->vocabulary_size(), " entries, the model only ",
                                                  manifest->vocabulary_size));
  }
  return std::make_unique<const Model>(Model{.manifest = *std::move(manifest), .tokenizer = *std::move(tokenizer)});
}

}  // namespace longembed
