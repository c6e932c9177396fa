// The part of a model that gives weights of vocabulary entries instead of a vector: SPLADE's masked-language-model head
// (arXiv 2107.05720, 2109.10086), or bge-m3's weight of each token (arXiv 2402.03216).
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

// Multiple threads can call the methods of one SparseHead without external synchronization.
class SparseHead {
 public:
  virtual ~SparseHead() = default;

  // `hidden` is row-major float32 [n, width], the last hidden states of tokens [n]; part i is the rows [offsets[i],
  // offsets[i + 1]), of one sequence. Returns the vector of each part. Memory grows with n times the vocabulary.
  // Errors: RESOURCE_EXHAUSTED (out of memory), INTERNAL.
  virtual absl::StatusOr<std::vector<SparseVector>> Run(std::span<const float> hidden, std::span<const int32_t> tokens,
                                                        std::span<const int32_t> offsets) = 0;

  // Combines the vectors of a sequence's parts into that of the sequence.
  virtual SparseSum sum() const = 0;
};

// Loads `directory`/sparse_head.pt, computed in float32 on `device`, as the encoder names it. Errors:
// FAILED_PRECONDITION with an actionable sentence.
absl::StatusOr<std::unique_ptr<SparseHead>> LoadSparseHead(const std::string& directory, const ModelManifest& manifest,
                                                           const std::string& device);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_SPARSE_HEAD_H_
