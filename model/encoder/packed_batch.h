// A batch as input of the encoder's graph: concatenated sequences without padding.
#ifndef LONGEMBED_MODEL_ENCODER_PACKED_BATCH_H_
#define LONGEMBED_MODEL_ENCODER_PACKED_BATCH_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/plan/sequence.h"

namespace longembed {

// A batch of S sequences with T tokens and P spans in total. A plain value.
struct PackedBatch {
  std::vector<int32_t> tokens;   // [T]
  std::vector<float> positions;  // [T]; empty for RoPE.
  // RoPE: row-major [rotary_tables, 2, T, rotary_width], where 2 stands for cos and sin. With one table, it is the
  // plain rotation. With three tables, which a sequence with a neighbor window or chunks needs, they are plain, grouped
  // and shifted (sequence.h). The grouped and shifted rows of other sequences are 0.
  std::vector<float> rotary;
  int rotary_tables = 0;
  int rotary_width = 0;
  std::vector<float> query_scale;        // [S]
  std::vector<int32_t> neighbor_window;  // [S]
  std::vector<int32_t> chunk;            // [S], or empty if no sequence has chunks.
  // [S], or empty. Rows and `apart` count from the sequence's first token.
  std::vector<SequenceCalibration> calibration;
  // [S + 1] Sequence s has the tokens [sequence_offsets[s], sequence_offsets[s + 1]).
  std::vector<int32_t> sequence_offsets;
  // [P] Ranges of the batch's tokens. First come the spans of sequences without a sparse vector, then one span for each
  // token of the sequences with one.
  std::vector<Range> spans;
  std::vector<int32_t> sparse;  // Indexes of the sequences with a sparse vector.
};

// Concatenates sequences of one model. Spans keep the order of the sequences, followed by the tokens of sequences with
// a sparse vector.
PackedBatch Pack(std::span<const Sequence* const> sequences);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_PACKED_BATCH_H_
