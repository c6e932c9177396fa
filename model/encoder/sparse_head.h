// The interface of sparse heads, which compute weights of vocabulary entries instead of a vector: SPLADE's
// masked-language-model head (arXiv 2107.05720, 2109.10086), or bge-m3's weight per token (arXiv 2402.03216).
#ifndef LONGEMBED_MODEL_ENCODER_SPARSE_HEAD_H_
#define LONGEMBED_MODEL_ENCODER_SPARSE_HEAD_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/vector/sparse.h"

namespace longembed {

// A sparse head. Multiple threads can call the methods of one SparseHead without external synchronization.
class SparseHead {
 public:
  virtual ~SparseHead() = default;

  // Returns the sparse vector of each part. `hidden` is row-major [n, width], the last hidden states of `tokens` [n].
  // Part i has the rows [offsets[i], offsets[i + 1]), which belong to one sequence. Memory grows with n times the
  // vocabulary size. Errors: RESOURCE_EXHAUSTED (out of memory), INTERNAL.
  virtual absl::StatusOr<std::vector<SparseVector>> Run(std::span<const float> hidden, std::span<const int32_t> tokens,
                                                        std::span<const int32_t> offsets) = 0;

  // Returns how the vectors of a sequence's parts are combined into the vector of the sequence.
  virtual SparseSum sum() const = 0;
};

// Loads `directory`/sparse_head.pt, which is computed in float32 on `device`, a name as in Encoder::device(). Errors:
// FAILED_PRECONDITION with an actionable sentence.
absl::StatusOr<std::unique_ptr<SparseHead>> LoadSparseHead(const std::string& directory, const ModelManifest& manifest,
                                                           const std::string& device);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_SPARSE_HEAD_H_
