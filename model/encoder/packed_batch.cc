#include "model/encoder/packed_batch.h"

#include <algorithm>

namespace longembed {
namespace {

// Copies the first `n` rows of a table to rows [start, start + n) of table `index` of the batch.
void CopyRows(const RotaryTable& table, int index, int64_t start, int64_t n, PackedBatch& batch) {
  const auto width = static_cast<int64_t>(table.width), plane = static_cast<int64_t>(batch.tokens.size()) * width;
  const auto to = batch.rotary.begin() + 2 * index * plane + start * width;
  std::copy_n(table.cos.begin(), n * width, to);
  std::copy_n(table.sin.begin(), n * width, to + plane);
}

void PackRotary(std::span<const Sequence* const> sequences, PackedBatch& batch) {
  if (sequences.empty() || sequences.front()->rotary == nullptr) return;
  const bool extended = std::ranges::any_of(sequences, [](const Sequence* s) { return s->rotary_grouped != nullptr; });
  batch.rotary_tables = extended ? 3 : 1;
  batch.rotary_width = sequences.front()->rotary->width;
  batch.rotary.resize(2 * batch.rotary_tables * batch.tokens.size() * static_cast<size_t>(batch.rotary_width));
  for (size_t s = 0; s < sequences.size(); ++s) {
    const Sequence& sequence = *sequences[s];
    const int64_t start = batch.sequence_offsets[s], n = sequence.size();
    CopyRows(*sequence.rotary, 0, start, n, batch);
    if (sequence.rotary_grouped == nullptr) continue;
    CopyRows(*sequence.rotary_grouped, 1, start, n, batch);
    CopyRows(*sequence.rotary_shifted, 2, start, n, batch);
  }
}

}  // namespace

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
    batch.neighbor_window.push_back(sequence->neighbor_window);
    batch.chunk.push_back(sequence->chunk);
    batch.calibration.push_back(sequence->calibration);
    batch.sequence_offsets.push_back(start + sequence->size());
    if (sequence->sparse) {
      batch.sparse.push_back(static_cast<int32_t>(batch.sequence_offsets.size()) - 2);
      continue;
    }
    for (const Range span : sequence->spans) batch.spans.push_back({start + span.start, start + span.end});
  }
  for (const int32_t s : batch.sparse) {
    for (int32_t i = batch.sequence_offsets[s]; i < batch.sequence_offsets[s + 1]; ++i)
      batch.spans.push_back({i, i + 1});
  }
  PackRotary(sequences, batch);
  return batch;
}

}  // namespace longembed
