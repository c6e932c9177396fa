#include "model/plan/methods/by_parts.h"

#include <cmath>
#include <numbers>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/plan/methods/range.h"
#include "system/return_if_error.h"

namespace longembed {

// Requires beta_fast to be at least the turns of the slowest pair within Lo, and beta_slow at most those of the fastest
// pair. Otherwise the ramp would have no pair between its ends. With beta_fast <= beta_slow, it would run backwards.
absl::Status CheckByParts(const ModelManifest& model, const ByParts& parts) {
  constexpr double kManyTurns = 1e6, kFewTurns = 1e-6;
  const auto field = [&parts](const char* name) { return absl::StrCat(parts.method, ".", name); };
  const double fast = parts.beta_fast, slow = parts.beta_slow;
  RETURN_IF_ERROR(CheckNumber(field("factor"), parts.factor, 1.0, kMaxFactor));
  const double fastest = model.trained_window / (2 * std::numbers::pi * model.rotary_factor);
  const double slowest = fastest * std::pow(model.rotary_base, 2.0 / model.rotary_dim - 1);
  RETURN_IF_ERROR(CheckNumber(field("beta_fast"), fast, slowest, kManyTurns));
  RETURN_IF_ERROR(CheckNumber(field("beta_slow"), slow, kFewTurns, fastest));
  if (fast > slow) return absl::OkStatus();
  return ExtensionValueOutOfRange(field("beta_fast"), absl::StrCat(fast), absl::StrCat("above beta_slow, ", slow));
}

Positions ResolveByParts(const ModelManifest& model, const ByParts& parts, int64_t n) {
  const double s = AdaptiveFactor(parts.factor, model, n);
  if (s == 1) return {};
  return {.method = parts.method, .factor = s, .ramp = Ramp{s, parts.beta_fast, parts.beta_slow}};
}

}  // namespace longembed
