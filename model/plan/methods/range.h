// Checks of a method's parameters: `value` must be within [least, most]; NaN is refused. An absent value is accepted.
// Errors: EXTENSION_VALUE_OUT_OF_RANGE with field, value and range.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_RANGE_H_
#define LONGEMBED_MODEL_PLAN_METHODS_RANGE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace longembed {

inline constexpr int64_t kMaxFactor = 65536;

absl::Status CheckNumber(const std::string& field, double value, double least, double most);
absl::Status CheckNumber(const std::string& field, const std::optional<double>& value, double least, double most);
absl::Status CheckCount(const std::string& field, const std::optional<int64_t>& value, int64_t least, int64_t most);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_RANGE_H_
