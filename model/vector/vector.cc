#include "model/vector/vector.h"

#include <algorithm>
#include <cmath>

#include "model/errors/errors.h"

namespace longembed {

bool AllFinite(std::span<const float> vector) {
  return std::all_of(vector.begin(), vector.end(), [](float x) { return std::isfinite(x); });
}

absl::Status Normalize(std::span<float> vector) {
  double squares = 0;
  for (const float x : vector) squares += static_cast<double>(x) * x;
  // The squares of finite floats cannot overflow a double, so this is finite exactly when every component is.
  if (!std::isfinite(squares) || squares == 0) return UnusableVector();
  const double scale = 1.0 / std::sqrt(squares);
  for (float& x : vector) x = static_cast<float>(x * scale);
  return absl::OkStatus();
}

absl::StatusOr<int> ResolveDimensions(const DimensionOptions& options, std::span<const int> trained) {
  const int all = trained.back();
  if (!options.dimensions.has_value()) return all;
  const int64_t wanted = *options.dimensions;
  if (wanted < 1 || wanted > all) return DimensionsOutOfRange(wanted, all);
  if (!options.force && !std::binary_search(trained.begin(), trained.end(), wanted)) {
    return DimensionsNotTrained(wanted, trained);
  }
  return static_cast<int>(wanted);
}

}  // namespace longembed
