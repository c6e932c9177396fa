#include "model/encoder/packed_batch.h"

namespace longembed {

PackedBatch Pack(std::span<const Sequence* const> sequences) {
  size_t tokens = 0;
  for (const Sequence* sequence : sequences) tokens += sequence->tokens.size();

  PackedBatch batch;
  batch.tokens.reserve(tokens);
  batch.positions.reserve(tokens);
  batch.sequence_offsets.reserve(sequences.size() + 1);
  batch.sequence_offsets.push_back(0);
  for (const Sequence* sequence : sequences) {
    const int32_t start = batch.sequence_offsets.back();
    batch.tokens.insert(batch.tokens.end(), sequence->tokens.begin(), sequence->tokens.end());
    batch.positions.insert(batch.positions.end(), sequence->positions.begin(), sequence->positions.end());
    batch.query_scale.push_back(sequence->query_scale);
    batch.neighbour_window.push_back(sequence->neighbour_window);
    batch.sequence_offsets.push_back(start + sequence->size());
    for (const Range span : sequence->spans) batch.spans.push_back({start + span.start, start + span.end});
  }
  return batch;
}

}  // namespace longembed
