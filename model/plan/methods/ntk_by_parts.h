// NTK-by-parts (arXiv 2309.00071). Pairs that turn more than beta_fast times within Lo keep theta_j, those that turn
// less than beta_slow times get theta_j / s, and a ramp linear in j connects them.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_NTK_BY_PARTS_H_
#define LONGEMBED_MODEL_PLAN_METHODS_NTK_BY_PARTS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/by_parts.h"
#include "model/plan/methods/positions.h"

namespace longembed {

struct NtkByParts {
  static constexpr const char* kName = "ntk_by_parts";
  static constexpr bool kRotary = true, kMovesTokens = false, kAdaptive = true;
  static constexpr bool kReplacesFrequencies = true;
  std::optional<double> factor;  // s, 1 to kMaxFactor. Adaptive: max(1, n / Lo).
  double beta_fast = 32;         // Turns within Lo; above beta_slow.
  double beta_slow = 1;

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("factor", factor);
    numbers.Number("beta_fast", beta_fast);
    numbers.Number("beta_slow", beta_slow);
  }

  absl::Status Check(const ModelManifest& model) const { return CheckByParts(model, parts()); }
  std::optional<int64_t> Reach(const ModelManifest& model) const { return ScaledReach(factor, model); }
  Positions Resolve(const ModelManifest& model, int64_t n) const { return ResolveByParts(model, parts(), n); }

 private:
  ByParts parts() const { return {kName, factor, beta_fast, beta_slow}; }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_NTK_BY_PARTS_H_
