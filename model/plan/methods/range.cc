#include "model/plan/methods/range.h"

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"

namespace longembed {

absl::Status CheckNumber(const std::string& field, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return ExtensionValueOutOfRange(field, absl::StrCat(value), absl::StrCat(least, " to ", most));
}

absl::Status CheckNumber(const std::string& field, const std::optional<double>& value, double least, double most) {
  return value.has_value() ? CheckNumber(field, *value, least, most) : absl::OkStatus();
}

absl::Status CheckCount(const std::string& field, const std::optional<int64_t>& value, int64_t least, int64_t most) {
  if (!value.has_value() || (*value >= least && *value <= most)) return absl::OkStatus();
  return ExtensionValueOutOfRange(field, absl::StrCat(*value), absl::StrCat(least, " to ", most));
}

}  // namespace longembed
