// Plain positions, for requests without a method.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_PLAIN_H_
#define LONGEMBED_MODEL_PLAN_METHODS_PLAIN_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"

namespace longembed {

struct PlainPositions {
  static constexpr const char* kName = "";
  static constexpr bool kRotary = false, kMovesTokens = false, kAdaptive = true;

  template <typename Numbers>
  void Describe(Numbers&) {}

  absl::Status Check(const ModelManifest&) const { return absl::OkStatus(); }
  std::optional<int64_t> Reach(const ModelManifest& model) const { return model.plain_limit; }
  std::optional<int64_t> DefaultWindow(const ModelManifest& model) const { return model.trained_window; }
  Positions Resolve(const ModelManifest&, int64_t) const { return {}; }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_PLAIN_H_
