#include "model/plan/methods/shifted_rotary.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/plan/methods/range.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

constexpr int64_t kLocalWindow = 128;

}  // namespace

ShiftedRotary ShiftedRotary::WithDefaults(const ModelManifest& model) const {
  const int64_t s = shift_from.value_or(std::max<int64_t>(model.trained_window / 3, 1));
  return {.shift_from = s, .local_window = local_window.value_or(std::min(kLocalWindow, s / 2))};
}

absl::Status ShiftedRotary::Check(const ModelManifest& model) const {
  RETURN_IF_ERROR(CheckCount("shifted_rotary.shift_from", shift_from, 1, model.trained_window));
  RETURN_IF_ERROR(CheckCount("shifted_rotary.local_window", local_window, 0, INT32_MAX));
  // A local window of S would change no distance, and a larger one would produce distances that no pair has.
  const ShiftedRotary whole = WithDefaults(model);
  const int64_t s = *whole.shift_from, w = *whole.local_window;
  if (w < s) return absl::OkStatus();
  return ExtensionValueOutOfRange("shifted_rotary.local_window", absl::StrCat(w),
                                  absl::StrCat("below shift_from, ", s));
}

std::optional<int64_t> ShiftedRotary::Reach(const ModelManifest& model) const {
  const ShiftedRotary whole = WithDefaults(model);
  return model.trained_window + *whole.shift_from - *whole.local_window;
}

Positions ShiftedRotary::Resolve(const ModelManifest& model, int64_t n) const {
  const ShiftedRotary whole = WithDefaults(model);
  const int64_t s = *whole.shift_from;
  if (n <= s) return {};
  return {.method = kName, .neighbor_window = s, .far_shift = *whole.local_window - s};
}

}  // namespace longembed
