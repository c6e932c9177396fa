// Embeds texts in process, without a server. Use it with load_encoder.h; examples/embed is a complete program.
//
//   auto model = LoadModel("models/e5-small-v2");
//   auto encoder = LoadEncoder("models/e5-small-v2", (*model)->manifest, {});
//   Team team;
//   HelperThreads helpers(team, 3);   // Without them each call uses one core.
//   Embedder embedder(**model, **encoder, team);
//   std::vector<Input> inputs = {Input("a text"), Input("another")};
//   auto vectors = embedder.Embed(inputs, {.prompt = PromptName{"passage"}});
//   std::vector<float> first = (*vectors)[0].front().values;   // Windows or spans give several vectors per text.
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
  bool sparse = false;               // Give the sparse vector of each text. Excludes spans and token vectors.
  std::optional<int64_t> max_terms;  // See FinishSparse; at least 1. Needs `sparse`.
  // See VectorOptions::token_pooling; 1 to kTokensPooledTogether. Needs token vectors; changes those of documents only.
  int64_t token_pooling = 1;
  // Maximum number of tokens of a batch; a longer sequence forms a batch of its own. Larger batches are faster up to a
  // few thousand tokens, and take more memory.
  int max_batch_tokens = 4096;
};

// Embeds texts with a model. Multiple threads can call Embed without external synchronization; each call encodes on the
// calling thread and with the team's helpers.
class Embedder {
 public:
  // All arguments must outlive the Embedder.
  Embedder(const Model& model, Encoder& encoder, Team& team) : model_(model), encoder_(encoder), team_(team) {}

  // Returns the vectors of each input, in order. Errors: those of CheckOutput, ResolvePrompt, CheckExtension,
  // CheckMaxTokens, ResolveDimensions, PrepareInput (with fields that begin with "inputs[i]") and Encoder::Encode;
  // INVALID_ARGUMENT for options that are out of range (MAX_TERMS_OUT_OF_RANGE, TOKEN_POOLING_OUT_OF_RANGE,
  // SPAN_TOO_SHORT) or do not go together (MISPLACED_FIELD).
  absl::StatusOr<std::vector<std::vector<OutputVector>>> Embed(std::span<const Input> inputs,
                                                               const EmbedderOptions& options) const;

 private:
  const Model& model_;
  Encoder& encoder_;
  Team& team_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_EMBEDDER_H_
