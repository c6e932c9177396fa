// Embeds texts in process, without a server. With load_encoder.h; examples/embed is a whole program.
//
//   auto model = LoadModel("models/e5-small-v2");
//   auto encoder = LoadEncoder("models/e5-small-v2", (*model)->manifest, {});
//   Team team;
//   HelperThreads helpers(team, 3);   // Without them each call uses one core.
//   Embedder embedder(**model, **encoder, team);
//   std::vector<Input> inputs = {Input("a text"), Input("another")};
//   auto vectors = embedder.Embed(inputs, {.prompt = PromptName{"passage"}});
//   std::vector<float> first = (*vectors)[0].front().values;   // More than one vector a text with windows or spans.
#ifndef LONGEMBED_MODEL_EMBED_EMBEDDER_H_
#define LONGEMBED_MODEL_EMBED_EMBEDDER_H_

#include <cstdint>
#include <optional>
#include <span>
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
  SpanRequest spans;
  DimensionOptions dimensions;
  bool normalize = true;
  bool vector_per_window = false;
  bool sparse = false;               // The sparse vector of each text instead.
  std::optional<int64_t> max_terms;  // Of sparse vectors, as FinishSparse has it.
  int64_t token_pooling = 1;         // Of documents' token vectors, as FinishVectors has it.
  // Texts are encoded in batches of at most so many tokens (a longer sequence goes alone). More is faster up to a few
  // thousand and takes more memory.
  int max_batch_tokens = 4096;
};

// Multiple threads can call Embed without external synchronization; each call encodes on its own thread.
class Embedder {
 public:
  // All must outlive this.
  Embedder(const Model& model, Encoder& encoder, Team& team) : model_(model), encoder_(encoder), team_(team) {}

  // The vectors of each input, in order. Errors: of CheckOutput, ResolvePrompt, CheckExtension, CheckMaxTokens,
  // ResolveDimensions, PrepareInput (fields begin with "inputs[i]") and Encoder::Encode.
  absl::StatusOr<std::vector<std::vector<OutputVector>>> Embed(std::span<const Input> inputs,
                                                               const EmbedderOptions& options) const;

 private:
  const Model& model_;
  Encoder& encoder_;
  Team& team_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_EMBEDDER_H_
