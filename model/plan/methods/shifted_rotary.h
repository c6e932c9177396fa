// STRING, shifted rotary positions (arXiv 2410.18745). A distance d of S or more becomes d - S + W, so that distances
// seen often in training replace far ones seen seldom or never. The paper uses it for decoders within their trained
// window; encoders get the mirror image. S and W are constants and do not depend on the sequence's length.
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
  std::optional<int64_t> shift_from;    // S, 1 to Lo. Default: Lo / 3, as in the paper.
  std::optional<int64_t> local_window;  // W, 0 to S - 1. Default: min(128, S / 2); 128 is the paper's.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("shift_from", shift_from);
    numbers.Number("local_window", local_window);
  }

  ShiftedRotary WithDefaults(const ModelManifest& model) const;
  absl::Status Check(const ModelManifest& model) const;
  // Returns Lo + S - W: at that length, the farthest pair, n - 1 tokens apart, gets the distance Lo - 1.
  std::optional<int64_t> Reach(const ModelManifest& model) const;
  Positions Resolve(const ModelManifest& model, int64_t n) const;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_SHIFTED_ROTARY_H_
