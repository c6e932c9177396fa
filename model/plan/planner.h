// From tokens and options to the sequences that the encoder runs over. Pure functions: no threads, no clock, no state,
// no torch.
#ifndef LONGEMBED_MODEL_PLAN_PLANNER_H_
#define LONGEMBED_MODEL_PLAN_PLANNER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/plan/sequence.h"

namespace longembed {

// What to do with content beyond the capacity.
enum class Truncate {
  kNone,   // Refuse it.
  kEnd,    // Keep the beginning.
  kStart,  // Keep the end.
};

struct PlanOptions {
  Truncate truncate = Truncate::kNone;
};

// The tokens of one input. The views must outlive the call only.
struct InputTokens {
  std::span<const int32_t> prompt;   // Put before the content of every sequence.
  std::span<const int32_t> content;  // Without special tokens, unless `complete`.
  bool complete = false;             // Content holds special tokens and prompt already; none are added.
};

struct PlannedSequence {
  Sequence sequence;
  Range content;  // Which tokens of the input's content it holds.
};

struct Plan {
  std::vector<PlannedSequence> sequences;  // At least one.
  int64_t tokens = 0;                      // Of the input as encoded, specials and prompt included.
  int64_t truncated_tokens = 0;            // Content tokens cut away.
  int64_t capacity = 0;                    // The most tokens one sequence may have under these options.
};

// Plans one input for the model that `model` describes.
// Errors (INVALID_ARGUMENT): EMPTY_INPUT, INPUT_TOO_LONG, PROMPT_TOO_LONG.
absl::StatusOr<Plan> PlanInput(const ModelManifest& model, const InputTokens& input, const PlanOptions& options);

// What running the sequences costs.
struct Cost {
  int64_t tokens = 0;           // Run through the model, all sequences together.
  int64_t attention_pairs = 0;  // Sum of n * n.
  double gigaflops = 0;         // Linear layers and attention together.
};
Cost EstimateCost(const ModelManifest& model, const Plan& plan);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_PLANNER_H_
