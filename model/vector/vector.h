// Truncates a vector to fewer dimensions and normalizes it to length 1. Stateless:
// any thread.
#ifndef LONGEMBED_MODEL_VECTOR_VECTOR_H_
#define LONGEMBED_MODEL_VECTOR_VECTOR_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longembed {

// Scales `vector` to Euclidean length 1, summing in double. A vector that is zero or not finite is an error
// (UNUSABLE_VECTOR) and stays as it was.
absl::Status Normalize(std::span<float> vector);

// Whether every component is a number.
bool AllFinite(std::span<const float> vector);

struct DimensionOptions {
  std::optional<int64_t> dimensions;  // Absent = all of the model's.
  bool force = false;                 // Also sizes that the model is not trained for.
};

// Returns the number of components to keep of a vector of `trained.back()` components.
// Errors (INVALID_ARGUMENT): DIMENSIONS_OUT_OF_RANGE, DIMENSIONS_NOT_TRAINED. `trained` is ascending and not empty.
absl::StatusOr<int> ResolveDimensions(const DimensionOptions& options, std::span<const int> trained);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_VECTOR_H_
