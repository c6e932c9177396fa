// YaRN (arXiv 2309.00071): NTK-by-parts, with cos and sin multiplied by 0.1 ln s + 1.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_YARN_H_
#define LONGEMBED_MODEL_PLAN_METHODS_YARN_H_

#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/by_parts.h"
#include "model/plan/methods/positions.h"

namespace longembed {

struct Yarn {
  static constexpr const char* kName = "yarn";
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
  Positions Resolve(const ModelManifest& model, int64_t n) const {
    Positions positions = ResolveByParts(model, parts(), n);
    positions.amplitude = 0.1 * std::log(positions.factor) + 1;
    return positions;
  }

 private:
  ByParts parts() const { return {kName, factor, beta_fast, beta_slow}; }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_YARN_H_
