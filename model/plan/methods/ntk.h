// NTK-aware scaling: a different rotary base b', given directly or by a factor s: b' = b s^(d / (d - 2)).
#ifndef LONGEMBED_MODEL_PLAN_METHODS_NTK_H_
#define LONGEMBED_MODEL_PLAN_METHODS_NTK_H_

#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"
#include "model/plan/methods/range.h"

namespace longembed {

inline constexpr double kMaxRotaryBase = 1e12;

inline double NtkBase(const ModelManifest& model, double factor) {
  const double d = model.rotary_dim;
  return model.rotary_base * std::pow(factor, d / (d - 2));
}

struct Ntk {
  static constexpr const char* kName = "ntk";
  static constexpr bool kRotary = true, kMovesTokens = false, kAdaptive = false;
  static constexpr bool kReplacesFrequencies = true;
  // Exactly one of the two must be set.
  std::optional<double> base;    // Above 1, at most kMaxRotaryBase.
  std::optional<double> factor;  // s, 1 to kMaxFactor.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("base", base);
    numbers.Number("factor", factor);
  }

  absl::Status Check(const ModelManifest&) const {
    if (base.has_value() == factor.has_value()) {
      return ExtensionConflict("ntk", base.has_value() ? "has both base and factor; exactly one of them is needed"
                                                       : "has neither base nor factor; exactly one of them is needed");
    }
    if (absl::Status status = CheckNumber("ntk.factor", factor, 1.0, kMaxFactor); !status.ok()) return status;
    // At a base of 1 every pair would have the same frequency. This form of the comparison refuses NaN.
    if (!base.has_value() || (*base > 1 && *base <= kMaxRotaryBase)) return absl::OkStatus();
    return ExtensionValueOutOfRange("ntk.base", absl::StrCat(*base), absl::StrCat("above 1, at most ", kMaxRotaryBase));
  }
  std::optional<int64_t> Reach(const ModelManifest& model) const { return ScaledReach(factor, model); }
  Positions Resolve(const ModelManifest& model, int64_t) const {
    const double b = base.has_value() ? *base : NtkBase(model, *factor);
    if (base.has_value() ? b == model.rotary_base : *factor == 1) return {};
    return {.method = kName, .factor = factor.value_or(1), .base = b};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_NTK_H_
