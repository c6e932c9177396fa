// SelfExtend (arXiv 2401.01325), in both directions for encoders. Pairs nearer than w tokens have plain positions.
// Farther pairs have the grouped positions floor(i / g) and floor(j / g), shifted by w - floor(w / g).
//   Defaults, which are LongEmbed's settings: g = s + 1 and w = floor(Lo / s), where s = ceil(n / Lo).
//   If only g is given: w = floor((g Lo - n) / (g - 1)).
//   If only w is given: g = ceil((n - w) / (Lo - w)).
#ifndef LONGEMBED_MODEL_PLAN_METHODS_SELF_EXTEND_H_
#define LONGEMBED_MODEL_PLAN_METHODS_SELF_EXTEND_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"

namespace longembed {

struct SelfExtend {
  static constexpr const char* kName = "self_extend";
  static constexpr bool kRotary = true, kMovesTokens = true, kAdaptive = true;
  std::optional<int64_t> group;            // g, 2 to kMaxFactor; 1 only with a neighbor window.
  std::optional<int64_t> neighbor_window;  // w, 1 to Lo - 1.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("group", group);
    numbers.Number("neighbor_window", neighbor_window);
  }

  absl::Status Check(const ModelManifest& model) const;
  std::optional<int64_t> Reach(const ModelManifest& model) const;
  // Returns the default size of a window: Reach if w is given, Lo if w is computed from the length.
  std::optional<int64_t> DefaultWindow(const ModelManifest& model) const;
  Positions Resolve(const ModelManifest& model, int64_t n) const;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_SELF_EXTEND_H_
