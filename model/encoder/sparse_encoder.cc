#include "model/encoder/sparse_encoder.h"

#include <algorithm>
#include <new>
#include <utility>

#include "model/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Maximum number of rows that the head processes at once. With a vocabulary of 30,522 the products of 128 rows take 15
// MiB, and the head's weights six times that. Fewer rows would read the weights more often.
constexpr int32_t kRows = 128;

// Rows of one sequence, as indexes into the token vectors of all sequences with a sparse vector.
struct Part {
  size_t sequence = 0;  // Index into PackedBatch::sparse.
  Range rows;
};

// Consecutive parts with at most kRows rows together.
using Group = std::vector<Part>;

std::vector<Group> FormGroups(const PackedBatch& batch) {
  std::vector<Group> groups;
  int32_t row = 0, left = 0;
  for (size_t i = 0; i < batch.sparse.size(); ++i) {
    const int32_t sequence = batch.sparse[i];
    const int32_t end = row + batch.sequence_offsets[sequence + 1] - batch.sequence_offsets[sequence];
    while (row < end) {
      const int32_t size = std::min(end - row, kRows);
      if (size > left) {
        groups.emplace_back();
        left = kRows;
      }
      groups.back().push_back({.sequence = i, .rows = {row, row + size}});
      row += size;
      left -= size;
    }
  }
  return groups;
}

std::vector<int32_t> TokensOf(const PackedBatch& batch) {
  std::vector<int32_t> tokens;
  for (const int32_t s : batch.sparse) {
    tokens.insert(tokens.end(), batch.tokens.begin() + batch.sequence_offsets[s],
                  batch.tokens.begin() + batch.sequence_offsets[s + 1]);
  }
  return tokens;
}

class SparseEncoder final : public Encoder {
 public:
  SparseEncoder(std::unique_ptr<Encoder> encoder, std::unique_ptr<SparseHead> head)
      : encoder_(std::move(encoder)), head_(std::move(head)) {}

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                     absl::FunctionRef<bool()> is_cancelled) override {
    absl::StatusOr<VectorBlock> block = encoder_->Encode(batch, leader, is_cancelled);
    if (!block.ok() || batch.sparse.empty()) return block;
    try {
      RETURN_IF_ERROR(RunHead(batch, leader, is_cancelled, *block));
    } catch (const std::bad_alloc&) {
      return EncoderOutOfMemory("the sparse vectors of the batch do not fit");
    }
    return block;
  }

  bool uses_helpers() const override { return encoder_->uses_helpers(); }
  int hidden_size() const override { return encoder_->hidden_size(); }
  std::string device() const override { return encoder_->device(); }
  Precision precision() const override { return encoder_->precision(); }
  std::string engine() const override { return encoder_->engine(); }
  std::string kernels() const override { return encoder_->kernels(); }

 private:
  // Replaces the last rows of the block, which are token vectors, by sparse vectors.
  absl::Status RunHead(const PackedBatch& batch, Team::Leader& leader, absl::FunctionRef<bool()> is_cancelled,
                       VectorBlock& block) {
    const std::vector<int32_t> tokens = TokensOf(batch);
    const size_t pooled = block.values.size() - tokens.size() * static_cast<size_t>(block.width);
    const std::span<const float> hidden = std::span(block.values).subspan(pooled);
    const std::vector<Group> groups = FormGroups(batch);
    std::vector<absl::StatusOr<std::vector<SparseVector>>> found(groups.size());
    // The groups run in rounds, because only this thread may call is_cancelled.
    for (size_t first = 0; first < groups.size();) {
      if (is_cancelled()) return EncoderCancelled();
      const size_t round = std::min(groups.size() - first, static_cast<size_t>(leader.threads()));
      leader.ParallelFor(static_cast<int>(round),
                         [&](int i) { found[first + i] = RunGroup(groups[first + i], hidden, tokens, block.width); });
      first += round;
    }
    std::vector<std::vector<SparseVector>> parts(batch.sparse.size());
    for (size_t g = 0; g < groups.size(); ++g) {
      if (!found[g].ok()) return found[g].status();
      for (size_t i = 0; i < groups[g].size(); ++i) parts[groups[g][i].sequence].push_back(std::move((*found[g])[i]));
    }
    for (const std::vector<SparseVector>& own : parts) block.sparse.push_back(Combine(own, head_->sum()));
    block.values.resize(pooled);
    block.rows -= static_cast<int>(tokens.size());
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<SparseVector>> RunGroup(const Group& group, std::span<const float> hidden,
                                                     std::span<const int32_t> tokens, int width) {
    const int32_t start = group.front().rows.start;
    const auto size = static_cast<size_t>(group.back().rows.end - start);
    std::vector<int32_t> offsets{0};
    for (const Part& part : group) offsets.push_back(part.rows.end - start);
    return head_->Run(hidden.subspan(static_cast<size_t>(start) * width, size * width),
                      tokens.subspan(static_cast<size_t>(start), size), offsets);
  }

  const std::unique_ptr<Encoder> encoder_;
  const std::unique_ptr<SparseHead> head_;
};

}  // namespace

std::unique_ptr<Encoder> WithSparseHead(std::unique_ptr<Encoder> encoder, std::unique_ptr<SparseHead> head) {
  return std::make_unique<SparseEncoder>(std::move(encoder), std::move(head));
}

}  // namespace longembed
