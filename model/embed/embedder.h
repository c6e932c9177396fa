// Embedding in process, for programs that link the model library and want no server.
//
//   auto model = LoadModel("models/e5-small-v2");
//   auto encoder = LoadTorchEncoder("models/e5-small-v2", (*model)->manifest, {});
//   Embedder embedder(**model, **encoder);
//   auto vectors = embedder.Embed({"a text", "another"}, {.prompt = PromptName{"passage"}});
#ifndef LONGEMBED_MODEL_EMBED_EMBEDDER_H_
#define LONGEMBED_MODEL_EMBED_EMBEDDER_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/embed/model.h"
#include "model/embed/pipeline.h"
#include "model/encoder/encoder.h"
#include "model/text/prompt.h"
#include "model/vector/vector.h"

namespace longembed {

struct EmbedderOptions {
  PromptChoice prompt;
  PlanOptions plan;
  DimensionOptions dimensions;
  bool normalize = true;
  // Texts are encoded in batches of at most so many tokens (a longer sequence goes alone). More is faster up to a few
  // thousand and takes more memory.
  int max_batch_tokens = 4096;
};

// Multiple threads can call Embed without external synchronization; each call encodes on its own thread.
class Embedder {
 public:
  // Both must outlive this.
  Embedder(const Model& model, Encoder& encoder) : model_(model), encoder_(encoder) {}

  // One vector a text, in order. Errors: of ResolvePrompt, ResolveDimensions, PrepareInput (fields begin with
  // "inputs[i]") and Encoder::Encode.
  absl::StatusOr<std::vector<std::vector<float>>> Embed(std::span<const std::string_view> texts,
                                                        const EmbedderOptions& options) const;

 private:
  const Model& model_;
  Encoder& encoder_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_EMBEDDER_H_
