// Recurrent positions (LongEmbed, arXiv 2404.12096): p -> p mod Lo.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_RECURRENT_H_
#define LONGEMBED_MODEL_PLAN_METHODS_RECURRENT_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"

namespace longembed {

struct Recurrent {
  static constexpr const char* kName = "recurrent";
  static constexpr bool kRotary = false, kMovesTokens = true, kAdaptive = true;

  template <typename Numbers>
  void Describe(Numbers&) {}

  absl::Status Check(const ModelManifest&) const { return absl::OkStatus(); }
  std::optional<int64_t> Reach(const ModelManifest&) const { return std::nullopt; }
  Positions Resolve(const ModelManifest& model, int64_t n) const {
    if (n <= model.trained_window) return {};
    return {.method = kName, .modulo = model.trained_window};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_RECURRENT_H_
