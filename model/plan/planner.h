// Plans an input: turns its tokens and options into the sequences that the encoder runs over. Pure functions without
// threads, clock, state or LibTorch.
#ifndef LONGEMBED_MODEL_PLAN_PLANNER_H_
#define LONGEMBED_MODEL_PLAN_PLANNER_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/plan/extension.h"
#include "model/plan/plan.h"
#include "model/plan/rotary.h"
#include "model/plan/sequence.h"

namespace longembed {

// The treatment of content tokens beyond the capacity.
enum class Truncate {
  kNone,   // Refuse the input.
  kEnd,    // Keep the beginning.
  kStart,  // Keep the end.
};

// Limits of one input. They are checked before memory is allocated for the input.
struct PlanLimits {
  int64_t max_tokens = std::numeric_limits<int32_t>::max();  // Tokens of the input after truncation.
  // Tokens of one sequence. The cost of attention grows with the square of this number.
  int64_t max_sequence_tokens = std::numeric_limits<int32_t>::max();
  int64_t max_run_tokens = std::numeric_limits<int32_t>::max();  // Tokens of all sequences, and of all spans.
  int64_t max_vectors = std::numeric_limits<int32_t>::max();     // Windows or spans.
};

// Whether each token gets a vector, and whether the text is a query or a document (TokenVectorSettings).
enum class TokenVectors {
  kNone,
  kQuery,     // Lengthened with expansion tokens. The extension does not apply.
  kDocument,  // Skipped tokens get no vector.
};

struct PlanOptions {
  Truncate truncate = Truncate::kNone;
  // Maximum number of tokens of the input, at least 1. `truncate` applies to it before the extension does.
  std::optional<int64_t> max_tokens;
  Extension extension;  // Must have passed CheckExtension.
  PlanLimits limits;
  // An empty input is encoded as its special tokens and prompt, if there are any, instead of being an error.
  bool allow_empty = false;
  bool sparse = false;                               // Each sequence gives a sparse vector. Excludes a SpanChoice.
  TokenVectors token_vectors = TokenVectors::kNone;  // Excludes a SpanChoice.
};

// The parts of the content that get one vector each (late chunking). The viewed data must outlive the call.
struct SpanChoice {
  std::span<const Range> ranges;  // Ranges of content tokens. None is empty, and all are within the content.
  // Whether a range that truncation removes is an error. If not, the range is dropped.
  bool required = false;
};

// The tokens of one input. The viewed data must outlive the call.
struct InputTokens {
  std::span<const int32_t> prompt;   // Precedes the content of every sequence.
  std::span<const int32_t> content;  // Has special tokens only if `complete`.
  bool complete = false;             // Content already includes special tokens and prompt.
  const SpanChoice* spans = nullptr;
  // Numbers of content tokens before and after those in `content`, which were not passed because truncation removes
  // them (TokensNeededForPlan). Excludes spans that name such tokens.
  int64_t before = 0;
  int64_t after = 0;
  bool estimated = false;  // `before` or `after` is an estimate.
};

// Checks a value of PlanOptions::max_tokens. Errors (INVALID_ARGUMENT): MAX_TOKENS_OUT_OF_RANGE.
absl::Status CheckMaxTokens(const std::optional<int64_t>& max_tokens);

// Plans one input for the model that `model` describes. `tables` caches rotary tables; all callers may share it. Errors
// (INVALID_ARGUMENT): EMPTY_INPUT, INPUT_TOO_LONG, PROMPT_TOO_LONG, OVERLAP_TOO_LARGE, INPUT_BEYOND_SERVER_LIMIT,
// WINDOW_TOO_LARGE, TOO_MANY_VECTORS, TOO_MANY_TOKENS, SPAN_TRUNCATED, NO_SPANS.
absl::StatusOr<Plan> PlanInput(const ModelManifest& model, const InputTokens& input, const PlanOptions& options,
                               RotaryTableCache& tables);

// Returns how many tokens of an input, special tokens and prompt included, determine its plan. These are the first
// tokens, or the last ones with Truncate::kStart. The plan depends on further tokens only through their number, which
// truncated_tokens reports. Returns nullopt if all tokens matter.
std::optional<int64_t> TokensNeededForPlan(const ModelManifest& model, const PlanOptions& options);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_PLANNER_H_
