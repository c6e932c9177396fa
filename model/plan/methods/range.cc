#include "model/plan/methods/range.h"

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"

namespace longembed {

absl::Status CheckNumber(const std::string& field, double value, double min, double max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return ExtensionValueOutOfRange(field, absl::StrCat(value), absl::StrCat(min, " to ", max));
}

absl::Status CheckNumber(const std::string& field, const std::optional<double>& value, double min, double max) {
  return value.has_value() ? CheckNumber(field, *value, min, max) : absl::OkStatus();
}

absl::Status CheckCount(const std::string& field, const std::optional<int64_t>& value, int64_t min, int64_t max) {
  if (!value.has_value() || (*value >= min && *value <= max)) return absl::OkStatus();
  return ExtensionValueOutOfRange(field, absl::StrCat(*value), absl::StrCat(min, " to ", max));
}

}  // namespace longembed
