// A model directory in memory without its encoder, which is enough to plan inputs.
#ifndef LONGEMBED_MODEL_EMBED_MODEL_H_
#define LONGEMBED_MODEL_EMBED_MODEL_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/plan/rotary.h"
#include "model/text/tokenizer.h"

namespace longembed {

// A model without its encoder. Multiple threads can use it without external synchronization: the cache of rotary tables
// is thread-safe, and the rest is immutable.
struct Model {
  ModelManifest manifest;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<RotaryTableCache> rotary_tables = std::make_unique<RotaryTableCache>();
};

// Reads the manifest and the tokenizer, and verifies the SHA-256 sum of every file. Calls `on_progress` with the
// fraction of bytes read so far, 0 to 1, from any thread but never concurrently. Errors: FAILED_PRECONDITION
// (MODEL_DIRECTORY), one sentence that names the file and what is wrong with it.
absl::StatusOr<std::unique_ptr<const Model>> LoadModel(const std::string& directory,
                                                       const std::function<void(double)>& on_progress = {});

// Reads the tokenizer of a model directory. Errors: FAILED_PRECONDITION (MODEL_DIRECTORY), also if the tokenizer has
// ids beyond the manifest's vocabulary.
absl::StatusOr<std::unique_ptr<const Tokenizer>> LoadTokenizer(const std::string& directory,
                                                               const ModelManifest& manifest);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_MODEL_H_
