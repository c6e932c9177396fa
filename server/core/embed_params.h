// The parameters and the answer of a call that embeds texts.
#ifndef LONGEMBED_SERVER_CORE_EMBED_PARAMS_H_
#define LONGEMBED_SERVER_CORE_EMBED_PARAMS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/embed/pipeline.h"
#include "server/batching/job.h"
#include "server/core/operation.h"

namespace longembed {

// A request after checks and with its defaults resolved.
struct EmbedParams {
  CallContext call;  // All that it refers to must live until `done` has been called.
  // At least one. The texts must live until `done` has been called. With partial_results an error takes the place of
  // its input in the answer.
  std::vector<absl::StatusOr<Input>> inputs;
  InputOptions input_options;
  VectorOptions vector_options;
  std::optional<int64_t> max_terms;  // For sparse vectors (input_options.plan.sparse).
  Priority priority = Priority::kInteractive;
  bool partial_results = false;           // An input's error becomes its result instead of failing the call.
  int64_t max_response_bytes = 64 << 20;  // Limit for the estimated size of the vectors.
  int bits_per_component = 32;            // In the answer's encoding.
};

struct EmbeddedInput {
  std::vector<OutputVector> vectors;
  Plan plan;  // Without the arrays of its sequences, which moved to the job.
};

struct EmbedAnswer {
  std::vector<absl::StatusOr<EmbeddedInput>> results;  // In the order of the inputs. All ok without partial_results.
  absl::Duration tokenization;
  absl::Duration queue;  // Wait for a tokenizing thread, and then for the model.
  absl::Duration inference;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_EMBED_PARAMS_H_
