// A model directory in memory, without the encoder: enough to plan inputs.
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

// Any thread may use it: the cache of rotary tables guards itself, the rest is immutable.
struct Model {
  ModelManifest manifest;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<RotaryTableCache> rotary_tables = std::make_unique<RotaryTableCache>();
};

// Reads manifest and tokenizer, and compares every file with its sum. Errors: FAILED_PRECONDITION (MODEL_DIRECTORY),
// one sentence that names file and fault. Calls `on_progress` with the fraction of the files that is read, 0 to 1, on
// any thread, one at a time.
absl::StatusOr<std::unique_ptr<const Model>> LoadModel(const std::string& directory,
                                                       const std::function<void(double)>& on_progress = {});

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_MODEL_H_
