// STRING, shifted rotary positions (arXiv 2410.18745): a distance d of S or more becomes d - S + W, so that distances
// that training saw often stand in for far ones that it saw seldom or never. Published for decoders within their
// trained window; encoders get the mirror image. Both numbers are constants: nothing follows from the length.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_SHIFTED_ROTARY_H_
#define LONGEMBED_MODEL_PLAN_METHODS_SHIFTED_ROTARY_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"

namespace longembed {

struct ShiftedRotary {
  static constexpr const char* kName = "shifted_rotary";
  static constexpr bool kRotary = true, kMovesTokens = true, kAdaptive = false;
  std::optional<int64_t> shift_from;    // S, 1 to Lo. Default: Lo / 3, the paper's.
  std::optional<int64_t> local_window;  // W, 0 to S - 1. Default: the paper's 128, at most S / 2.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("shift_from", shift_from);
    numbers.Number("local_window", local_window);
  }

  ShiftedRotary WithDefaults(const ModelManifest& model) const;
  absl::Status Check(const ModelManifest& model) const;
  // The farthest pair, n - 1 tokens apart, comes to Lo - 1: Lo + S - W tokens.
  std::optional<int64_t> Reach(const ModelManifest& model) const;
  Positions Resolve(const ModelManifest& model, int64_t n) const;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_SHIFTED_ROTARY_H_
