// Sequences of tokens. Each text of a request is planned as one or more sequences, and a batch is a concatenation of
// sequences without padding.
#ifndef LONGEMBED_MODEL_PLAN_SEQUENCE_H_
#define LONGEMBED_MODEL_PLAN_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

namespace longembed {

// A half-open range [start, end).
struct Range {
  int32_t start = 0;
  int32_t end = 0;

  int32_t size() const { return end - start; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Cosines and sines of rotation angles, row-major [rows, width], where width = rotary_dim / 2.
struct RotaryTable {
  int width = 0;
  std::vector<float> cos;
  std::vector<float> sin;

  int64_t rows() const { return width == 0 ? 0 : static_cast<int64_t>(cos.size()) / width; }
};

// Attention calibration against position bias (arXiv 2601.16934) for the queries of some tokens in the last layers.
// Keys are divided into baskets that get equal shares of a row's attention (README.md).
struct SequenceCalibration {
  int32_t basket = 0;  // Positions per basket; 0 means plain attention.
  float strength = 0;  // Weight of the calibrated row against the plain one, 0 to 1.
  int32_t first_layer = 0;
  int32_t apart = -1;  // Key that is in no basket and keeps its weight; -1 if none.
  Range rows;          // The queries to calibrate.
};

// A sequence of n = tokens.size() tokens. Attention stays within a sequence, so its vectors do not depend on the rest
// of the batch. A plain value.
struct Sequence {
  std::vector<int32_t> tokens;   // [n] Token ids, special tokens and prompt included.
  std::vector<float> positions;  // [n] APE: rows of the position table, not always whole. RoPE: empty.
  // RoPE: row i holds the rotation of token i. Rows beyond n are ignored. Plain sequences share their table.
  std::shared_ptr<const RotaryTable> rotary;
  // Rotations for token pairs that are far apart, for methods that treat them differently from near pairs. Both tables
  // are set or neither is. The positions that they stand for are:
  // * SelfExtend, distances of at least w: grouped i / g for the earlier token; shifted i / g + w - w / g for the
  //   later.
  // * STRING, distances of at least S: grouped i for the earlier token; shifted i - S + W for the later.
  // * Dual chunk attention, for the later token i (the earlier one has its row of `rotary`):
  //   shifted s + min(i mod s, w - 1) if the earlier token is one chunk away; grouped s + w - 1 if it is farther away.
  std::shared_ptr<const RotaryTable> rotary_grouped;
  std::shared_ptr<const RotaryTable> rotary_shifted;
  float query_scale = 1.0f;  // From attention log-scaling and temperature; 1 = neither.
  // SelfExtend's w or STRING's S. 0 means plain attention. -k means plain attention in which no token attends to the
  // last k tokens (for models with TokenVectors).
  int32_t neighbor_window = 0;
  SequenceCalibration calibration;
  int32_t chunk = 0;         // Dual chunk attention's s; 0 means none.
  std::vector<Range> spans;  // Token ranges; the encoder gives the mean over each.
  bool sparse = false;       // The encoder gives a sparse vector of the sequence instead.

  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_SEQUENCE_H_
