// Sparse vectors: weights of a few entries of a vocabulary. Stateless: any thread.
#ifndef LONGEMBED_MODEL_VECTOR_SPARSE_H_
#define LONGEMBED_MODEL_VECTOR_SPARSE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace longembed {

// A plain value. Every component that is not listed is 0.
struct SparseVector {
  std::vector<int32_t> indices;  // Ascending, each once.
  std::vector<float> values;     // As many.

  int64_t size() const { return static_cast<int64_t>(indices.size()); }
  friend bool operator==(const SparseVector&, const SparseVector&) = default;
};

enum class SparseSum { kMax, kAdd };

// One vector that has every index of `parts`, its value the maximum or the sum of its values there. A NaN stays one.
SparseVector Combine(std::span<const SparseVector> parts, SparseSum sum);

// Keeps the `count` largest values; of equal ones those with the lower indices.
void KeepLargest(int64_t count, SparseVector& vector);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_SPARSE_H_
