// Sparse vectors, which give weights to a few vocabulary entries. Stateless functions that any thread can call.
#ifndef LONGEMBED_MODEL_VECTOR_SPARSE_H_
#define LONGEMBED_MODEL_VECTOR_SPARSE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace longembed {

// A sparse vector as a plain value. Components that are not listed are 0.
struct SparseVector {
  std::vector<int32_t> indices;  // Strictly ascending.
  std::vector<float> values;     // Same size as `indices`.

  int64_t size() const { return static_cast<int64_t>(indices.size()); }
  friend bool operator==(const SparseVector&, const SparseVector&) = default;
};

enum class SparseSum { kMax, kAdd };

// Returns one vector with every index of `parts`. A value is the maximum or the sum of the index's values in `parts`.
// NaN is propagated.
SparseVector Combine(std::span<const SparseVector> parts, SparseSum sum);

// Keeps the `count` largest values. Among equal values, lower indices are kept.
void KeepLargest(int64_t count, SparseVector& vector);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_SPARSE_H_
