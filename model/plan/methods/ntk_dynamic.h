// Dynamic NTK scaling: a sequence of n > Lo tokens has the rotary base b (f n / Lo - (f - 1))^(d / (d - 2)).
#ifndef LONGEMBED_MODEL_PLAN_METHODS_NTK_DYNAMIC_H_
#define LONGEMBED_MODEL_PLAN_METHODS_NTK_DYNAMIC_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/ntk.h"
#include "model/plan/methods/positions.h"
#include "model/plan/methods/range.h"

namespace longembed {

struct NtkDynamic {
  static constexpr const char* kName = "ntk_dynamic";
  static constexpr bool kRotary = true, kMovesTokens = false, kAdaptive = true;
  static constexpr bool kReplacesFrequencies = true;
  double factor = 1;  // f, 1 to kMaxFactor.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("factor", factor);
  }

  absl::Status Check(const ModelManifest&) const { return CheckNumber("ntk_dynamic.factor", factor, 1, kMaxFactor); }
  std::optional<int64_t> Reach(const ModelManifest&) const { return std::nullopt; }
  Positions Resolve(const ModelManifest& model, int64_t n) const {
    if (n <= model.trained_window) return {};
    const double s = factor * static_cast<double>(n) / model.trained_window - (factor - 1);
    return {.method = kName, .factor = s, .base = NtkBase(model, s)};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_NTK_DYNAMIC_H_
