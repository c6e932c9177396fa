// The one representation behind every request: a text becomes sequences, and a batch is a concatenation of sequences
// without padding.
#ifndef LONGEMBED_MODEL_PLAN_SEQUENCE_H_
#define LONGEMBED_MODEL_PLAN_SEQUENCE_H_

#include <cstdint>
#include <vector>

namespace longembed {

// Half open: [start, end).
struct Range {
  int32_t start = 0;
  int32_t end = 0;

  int32_t size() const { return end - start; }
  friend bool operator==(const Range&, const Range&) = default;
};

// What the encoder runs over in one go. Attention stays within a sequence, so its vectors depend on nothing else in the
// batch. A plain value without invariants between threads; n = tokens.size().
struct Sequence {
  std::vector<int32_t> tokens;   // [n] Vocabulary ids, special tokens and prompt included.
  std::vector<float> positions;  // [n] APE: real-valued rows of the position table.
  float query_scale = 1.0f;      // Attention log-scaling; 1 = none.
  int32_t neighbour_window = 0;  // SelfExtend; 0 = plain attention.
  std::vector<Range> spans;      // Token ranges within the sequence; the encoder gives the mean of each.

  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_SEQUENCE_H_
