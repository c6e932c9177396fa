// Truncates a vector to fewer dimensions and normalizes it to length 1. Stateless functions that any thread can call.
#ifndef LONGEMBED_MODEL_VECTOR_VECTOR_H_
#define LONGEMBED_MODEL_VECTOR_VECTOR_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longembed {

// Scales `vector` to Euclidean length 1; the sum is computed in double. Errors: UNUSABLE_VECTOR if the vector is zero
// or not finite; it is then left unchanged.
absl::Status Normalize(std::span<float> vector);

// Returns whether every component is finite.
bool AllFinite(std::span<const float> vector);

struct DimensionOptions {
  std::optional<int64_t> dimensions;  // Absent means all of the model's dimensions.
  bool force = false;                 // Accept sizes that the model is not trained for.
};

// Returns the number of components to keep of a vector of `trained.back()` components. `trained` is ascending and not
// empty. Errors (INVALID_ARGUMENT): DIMENSIONS_OUT_OF_RANGE, DIMENSIONS_NOT_TRAINED.
absl::StatusOr<int> ResolveDimensions(const DimensionOptions& options, std::span<const int> trained);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_VECTOR_H_
