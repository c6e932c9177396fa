// A batch as the encoder's graph takes it: sequences one after the other, no padding.
#ifndef LONGEMBED_MODEL_ENCODER_PACKED_BATCH_H_
#define LONGEMBED_MODEL_ENCODER_PACKED_BATCH_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/plan/sequence.h"

namespace longembed {

// With T tokens, S sequences and P spans in all. A plain value.
struct PackedBatch {
  std::vector<int32_t> tokens;   // [T]
  std::vector<float> positions;  // [T]; empty for RoPE.
  // RoPE: row-major [rotary_tables, 2, T, rotary_width], where the 2 are cos and sin. One table is the plain rotation.
  // Three, when a sequence has a neighbor window or chunks: plain, grouped, shifted (sequence.h); rows of other
  // sequences are 0.
  std::vector<float> rotary;
  int rotary_tables = 0;
  int rotary_width = 0;
  std::vector<float> query_scale;                // [S]
  std::vector<int32_t> neighbor_window;          // [S]
  std::vector<int32_t> chunk;                    // [S] May be empty.
  std::vector<SequenceCalibration> calibration;  // [S] Rows and `apart` in tokens of the sequence. May be empty.
  // [S + 1] Sequence s is tokens[sequence_offsets[s] .. sequence_offsets[s + 1]).
  std::vector<int32_t> sequence_offsets;
  // [P] In tokens of the batch. First those of sequences without a sparse vector; then each token of those with one.
  std::vector<Range> spans;
  std::vector<int32_t> sparse;  // The sequences with a sparse vector, by their numbers.
};

// Concatenates; spans keep their order: those of the first sequence, then those of the second, and so on, and at last
// the tokens of those with a sparse vector. The sequences are of one model.
PackedBatch Pack(std::span<const Sequence* const> sequences);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_PACKED_BATCH_H_
