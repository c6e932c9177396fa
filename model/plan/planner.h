// From tokens and options to the sequences that the encoder runs over. Pure functions: no threads, no clock, no state,
// no torch.
#ifndef LONGEMBED_MODEL_PLAN_PLANNER_H_
#define LONGEMBED_MODEL_PLAN_PLANNER_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/plan/extension.h"
#include "model/plan/rotary.h"
#include "model/plan/sequence.h"

namespace longembed {

// Treatment of content beyond the capacity.
enum class Truncate {
  kNone,   // Refuse it.
  kEnd,    // Keep the beginning.
  kStart,  // Keep the end.
};

// Limits of one input. Checked before memory is allocated for it.
struct PlanLimits {
  int64_t max_tokens = std::numeric_limits<int32_t>::max();           // Of the input as truncation leaves it.
  int64_t max_sequence_tokens = std::numeric_limits<int32_t>::max();  // One pass: attention takes the square of it.
  int64_t max_run_tokens = std::numeric_limits<int32_t>::max();       // All sequences together, overlaps counted.
  int64_t max_vectors = std::numeric_limits<int32_t>::max();          // Windows or spans.
};

// Whether each token gets a vector, and as what the model takes the text (TokenVectorSettings).
enum class TokenVectors {
  kNone,
  kQuery,     // Lengthened; not extended, whatever the extension.
  kDocument,  // Without vectors of skipped tokens.
};

struct PlanOptions {
  Truncate truncate = Truncate::kNone;
  std::optional<int64_t> max_tokens;  // Of the input: beyond it `truncate` applies, before the extension does. From 1.
  Extension extension;                // Checked by CheckExtension.
  PlanLimits limits;
  bool allow_empty = false;  // An input without tokens is its special tokens alone, where the model has any.
  bool sparse = false;       // Each sequence gives its sparse vector. Not with a SpanChoice.
  TokenVectors token_vectors = TokenVectors::kNone;  // Not with a SpanChoice.
};

// The parts of the content that get a vector each (late chunking). The view must outlive the call only.
struct SpanChoice {
  std::span<const Range> ranges;  // Content tokens; each is not empty and within the content.
  bool required = false;          // A range that truncation cut away is an error; otherwise it is left out.
};

// The tokens of one input. The views must outlive the call only.
struct InputTokens {
  std::span<const int32_t> prompt;   // Put before the content of every sequence.
  std::span<const int32_t> content;  // Without special tokens, unless `complete`.
  bool complete = false;             // Content holds special tokens and prompt already; none are added.
  const SpanChoice* spans = nullptr;
  // Number of further tokens that the content has before and after the given ones. Not together with spans that name
  // them; truncation must cut them (TokensThatMatter).
  int64_t before = 0;
  int64_t after = 0;
  bool estimated = false;  // One of the two numbers is.
};

struct PlannedSequence {
  Sequence sequence;
  int32_t tokens = 0;  // Of the sequence; stays when the sequence itself has moved on.
  Range content;       // Which tokens of the input's content it holds.
  Positions positions;
};

// The contribution of one encoder row to the vector of a span that windows cut.
struct SpanPart {
  int32_t span = 0;    // Of Plan::spans.
  int32_t tokens = 0;  // That the row is the mean of: its weight.
};

struct Plan {
  std::vector<PlannedSequence> sequences;  // At least one; one a window, without windows that no span takes a token of.
  // Content tokens of each span's or token's vector; empty where there are none. A token that is not of the content has
  // an empty range, at the content's beginning or end.
  std::vector<Range> spans;
  // Spans with windows: one a row of the encoder, in order. Empty: row i is the vector of span i.
  std::vector<SpanPart> parts;
  int64_t tokens = 0;            // Of the input as encoded, specials and prompt included.
  int64_t truncated_tokens = 0;  // Content tokens cut away.
  bool estimated = false;        // truncated_tokens is, and so are places in the content after truncation at the start.
  int64_t capacity = 0;          // The most tokens one sequence may have under these options and limits.

  int64_t run_tokens() const;  // All sequences together.
  int64_t rows() const { return parts.empty() ? vectors() : static_cast<int64_t>(parts.size()); }  // Of the encoder.
  int64_t vectors() const { return static_cast<int64_t>(spans.empty() ? sequences.size() : spans.size()); }
};

// Whether PlanOptions::max_tokens may be this. Errors (INVALID_ARGUMENT): MAX_TOKENS_OUT_OF_RANGE.
absl::Status CheckMaxTokens(const std::optional<int64_t>& max_tokens);

// Plans one input for the model that `model` describes. `tables` caches rotary tables; all callers may share it.
// Errors (INVALID_ARGUMENT): EMPTY_INPUT, INPUT_TOO_LONG, PROMPT_TOO_LONG, OVERLAP_TOO_LARGE,
// INPUT_BEYOND_SERVER_LIMIT, WINDOW_TOO_LARGE, TOO_MANY_VECTORS, TOO_MANY_TOKENS, SPAN_TRUNCATED,
// NO_SPANS.
absl::StatusOr<Plan> PlanInput(const ModelManifest& model, const InputTokens& input, const PlanOptions& options,
                               RotaryTableCache& tables);

// Returns how many tokens of an input, specials and prompt included, decide its plan: those of its beginning, or of its
// end with Truncate::kStart. Of more than these the plan depends on their number alone, for truncated_tokens. nullopt:
// all.
std::optional<int64_t> TokensThatMatter(const ModelManifest& model, const PlanOptions& options);

// The cost of running the sequences.
struct Cost {
  int64_t tokens = 0;           // Run through the model, all sequences together.
  int64_t attention_pairs = 0;  // Sum of n * n.
  double gflop = 0;  // 1e9 floating-point operations, of linear layers and attention together; of local attention
                     // within its window, of causal attention half.
};
Cost EstimateCost(const ModelManifest& model, const Plan& plan);

// Operations of attention for one (query, key) pair, half of them for a causal model, of those for one token: of linear
// layers and of local attention, whose window holds the same number of keys for every token of a long sequence.
double AttentionShare(const ModelManifest& model);

// Floating-point operations of all linear layers for one token; a multiply and an add count as two.
double LinearOperations(const ModelManifest& model);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_PLANNER_H_
