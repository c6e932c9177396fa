// Grouped positions (LongEmbed, arXiv 2404.12096): p -> floor(p / s), s whole. Adaptive: s = ceil(n / Lo).
#ifndef LONGEMBED_MODEL_PLAN_METHODS_GROUPED_H_
#define LONGEMBED_MODEL_PLAN_METHODS_GROUPED_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"
#include "model/plan/methods/range.h"

namespace longembed {

struct Grouped {
  static constexpr const char* kName = "grouped";
  static constexpr bool kRotary = false, kMovesTokens = true, kAdaptive = true;
  std::optional<int64_t> factor;  // s, 1 to kMaxFactor.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("factor", factor);
  }

  absl::Status Check(const ModelManifest&) const { return CheckCount("grouped.factor", factor, 1, kMaxFactor); }
  std::optional<int64_t> Reach(const ModelManifest& model) const {
    if (!factor.has_value()) return std::nullopt;
    return *factor * model.trained_window;
  }
  Positions Resolve(const ModelManifest& model, int64_t n) const {
    const int64_t s = factor.value_or(CeilDivide(n, model.trained_window));
    if (s == 1) return {};
    return {.method = kName, .factor = static_cast<double>(s), .divide = s};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_GROUPED_H_
