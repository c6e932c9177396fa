// Position interpolation (arXiv 2306.15595): p -> p / s. A position table is interpolated linearly between two rows;
// rotary frequencies become theta_j / s. Adaptive: s = max(1, n / Lo).
#ifndef LONGEMBED_MODEL_PLAN_METHODS_INTERPOLATION_H_
#define LONGEMBED_MODEL_PLAN_METHODS_INTERPOLATION_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"
#include "model/plan/methods/range.h"

namespace longembed {

struct Interpolation {
  static constexpr const char* kName = "interpolation";
  static constexpr bool kRotary = false, kMovesTokens = false, kAdaptive = true;
  std::optional<double> factor;  // s, 1 to kMaxFactor.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("factor", factor);
  }

  absl::Status Check(const ModelManifest&) const {
    return CheckNumber("interpolation.factor", factor, 1.0, kMaxFactor);
  }
  std::optional<int64_t> Reach(const ModelManifest& model) const { return ScaledReach(factor, model); }
  Positions Resolve(const ModelManifest& model, int64_t n) const {
    const double s = AdaptiveFactor(factor, model, n);
    if (s == 1) return {};
    return {.method = kName, .factor = s, .interpolate = s};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_INTERPOLATION_H_
