// Checks of a method's parameters: `value` must be within [min, max]; NaN is refused. An absent value is accepted.
// Errors: EXTENSION_VALUE_OUT_OF_RANGE with field, value and range.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_RANGE_H_
#define LONGEMBED_MODEL_PLAN_METHODS_RANGE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace longembed {

inline constexpr int64_t kMaxFactor = 65536;

absl::Status CheckNumber(const std::string& field, double value, double min, double max);
absl::Status CheckNumber(const std::string& field, const std::optional<double>& value, double min, double max);
absl::Status CheckCount(const std::string& field, const std::optional<int64_t>& value, int64_t min, int64_t max);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_RANGE_H_
