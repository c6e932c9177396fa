// Attention calibration against position bias (arXiv 2601.16934, 2606.02737), on top of any positions method.
//
// Keys of a sequence of n tokens are cut into baskets of B positions, the first from position 0 on. Of a calibrated row
// of attention a_j, each of the m baskets that the row sees gets an equal part of what the pooled special token c
// leaves, and weights within a basket keep their proportions:
//   a'_j = (1 - a_c) / m * a_j / (sum of a over j's basket), a'_c = a_c;  a_j <- l a'_j + (1 - l) a_j
// in the last ceil(s L) of L layers.
// * CLS and LAST pooling: the pooled token's row, which is c itself. It is in no basket.
// * Mean pooling, spans, token vectors and sparse vectors: every row, and no token is apart.
// * Causal models: a row's baskets are those that hold a key it sees; of its own basket, the keys that it sees.
// * Local layers count among the L and stay as they are, as under every part of an extension.
// * Within one basket (n <= B) and with l = 0 attention is plain, to the bit.
// Weights are those after the one softmax, whatever rotations or biases gave the scores. Plain values and pure
// functions: any thread.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_ATTENTION_CALIBRATION_H_
#define LONGEMBED_MODEL_PLAN_METHODS_ATTENTION_CALIBRATION_H_

#include <cmath>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"
#include "model/plan/methods/range.h"

namespace longembed {

struct AttentionCalibration {
  static constexpr const char* kName = "attention_calibration";
  static constexpr int64_t kMaxBasket = 65536;
  double strength = 0.5;  // l, 0 to 1.
  int64_t basket = 128;   // B, 1 to kMaxBasket.
  double layers = 0.5;    // s, above 0, at most 1.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("strength", strength);
    numbers.Number("basket", basket);
    numbers.Number("layers", layers);
  }

  absl::Status Check() const {
    if (absl::Status status = CheckNumber("attention_calibration.strength", strength, 0, 1); !status.ok()) {
      return status;
    }
    if (absl::Status status = CheckCount("attention_calibration.basket", basket, 1, kMaxBasket); !status.ok()) {
      return status;
    }
    // The comparison this way round refuses NaN.
    if (layers > 0 && layers <= 1) return absl::OkStatus();
    return ExtensionValueOutOfRange("attention_calibration.layers", absl::StrCat(layers), "above 0, at most 1");
  }

  // Of a sequence of n tokens.
  Calibration Resolve(const ModelManifest& model, int64_t n) const {
    if (strength == 0 || n <= basket) return {};
    // A hair below, because 0.1 * 30 is 3.0000000000000004 in doubles.
    const auto count = static_cast<int64_t>(std::ceil(layers * model.layers * (1 - 1e-12)));
    return {.strength = strength, .basket = basket, .layers = count};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_ATTENTION_CALIBRATION_H_
