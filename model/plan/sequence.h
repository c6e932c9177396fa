// The one representation behind every request: a text becomes sequences, and a batch is a concatenation of sequences
// without padding.
#ifndef LONGEMBED_MODEL_PLAN_SEQUENCE_H_
#define LONGEMBED_MODEL_PLAN_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

namespace longembed {

// Half open: [start, end).
struct Range {
  int32_t start = 0;
  int32_t end = 0;

  int32_t size() const { return end - start; }
  friend bool operator==(const Range&, const Range&) = default;
};

// cos and sin of rotation angles, row-major float32 [rows, width]; width = rotary_dim / 2.
struct RotaryTable {
  int width = 0;
  std::vector<float> cos;
  std::vector<float> sin;

  int64_t rows() const { return width == 0 ? 0 : static_cast<int64_t>(cos.size()) / width; }
};

// Attention calibrated against position bias in the last layers (arXiv 2601.16934), of some tokens' queries: keys are
// cut into baskets that share a row's attention equally (README.md).
struct SequenceCalibration {
  int32_t basket = 0;  // Positions of a basket; 0: attention is plain.
  float strength = 0;  // Of the mix with the plain row, 0 to 1.
  int32_t first_layer = 0;
  int32_t apart = -1;  // The token that keeps its share, in no basket; -1: none.
  Range rows;          // The queries.
};

// The unit that the encoder runs over at once. Attention stays within a sequence, so its vectors depend on nothing else
// in the batch. A plain value without invariants between threads; n = tokens.size().
struct Sequence {
  std::vector<int32_t> tokens;   // [n] Vocabulary ids, special tokens and prompt included.
  std::vector<float> positions;  // [n] APE: real-valued rows of the position table. RoPE: empty.
  // RoPE: row i is token i's rotation; more rows than n are ignored. Shared, because plain sequences have equal ones.
  std::shared_ptr<const RotaryTable> rotary;
  // For pairs at distance w or more, the rotations of the earlier token's position and of the later one's. SelfExtend:
  // i / g and i / g + w - w / g. STRING: i and i - S + W, with w = S. Dual chunk attention: those of s + w - 1 and
  // s + min(i mod s, w - 1), for pairs of farther chunks and of neighboring ones. Both or none.
  std::shared_ptr<const RotaryTable> rotary_grouped;
  std::shared_ptr<const RotaryTable> rotary_shifted;
  float query_scale = 1.0f;  // Attention log-scaling; 1 = none.
  // SelfExtend's w, STRING's S; 0 = plain attention; -k = plain, and no token attends to the last k (for models with
  // TokenVectors).
  int32_t neighbor_window = 0;
  SequenceCalibration calibration;
  int32_t chunk = 0;         // Dual chunk attention's s; 0: none.
  std::vector<Range> spans;  // Token ranges within the sequence; the encoder gives the mean of each.
  bool sparse = false;       // The encoder gives the sparse vector of the sequence in place of its one span.

  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_SEQUENCE_H_
