// The plan of one input: the sequences that the encoder runs over, and which of their rows make which vector.
#ifndef LONGEMBED_MODEL_PLAN_PLAN_H_
#define LONGEMBED_MODEL_PLAN_PLAN_H_

#include <cstdint>
#include <vector>

#include "model/plan/methods/positions.h"
#include "model/plan/sequence.h"

namespace longembed {

struct PlannedSequence {
  Sequence sequence;
  int32_t tokens = 0;  // Length of the sequence, valid even after `sequence` is moved from.
  Range content;       // Content tokens of the input that the sequence holds.
  Positions positions;
};

// One encoder row's contribution to the vector of a span. A span that crosses a window boundary has several parts.
struct SpanPart {
  int32_t span = 0;    // Index into Plan::spans.
  int32_t tokens = 0;  // Number of tokens that the row is the mean of, which is its weight.
};

struct Plan {
  // At least one sequence. With windows there is one per window; windows that contribute no token to a span are left
  // out.
  std::vector<PlannedSequence> sequences;
  // The content tokens of each span, or of each token that gets a vector. Empty without spans and token vectors. A
  // special token or prompt token has an empty range at the beginning or end of the content.
  std::vector<Range> spans;
  // For spans with windows: one entry per encoder row, in order. Empty if row i is the vector of span i.
  std::vector<SpanPart> parts;
  int64_t tokens = 0;            // Tokens of the input as encoded, special tokens and prompt included.
  int64_t truncated_tokens = 0;  // Content tokens that truncation removed.
  // Whether truncated_tokens is an estimate. If it is, and truncation was at the start, all positions within the
  // content are estimates, too.
  bool estimated = false;
  int64_t capacity = 0;  // Maximum tokens of one sequence under these options and limits.

  int64_t run_tokens() const;   // Tokens of all sequences together.
  int64_t span_tokens() const;  // Tokens of all spans together, counted once for each span.
  // Returns the number of rows that the encoder gives.
  int64_t rows() const { return parts.empty() ? vectors() : static_cast<int64_t>(parts.size()); }
  int64_t vectors() const { return static_cast<int64_t>(spans.empty() ? sequences.size() : spans.size()); }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_PLAN_H_
