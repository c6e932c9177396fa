// Attention calibration against position bias (arXiv 2601.16934, 2606.02737), on top of any positions method.
//
// The n keys of a sequence are divided into consecutive baskets of B positions, the first from position 0. Let a_j be
// one query's attention weight for key j, and c the pooled special token. Each of the m baskets that the query sees
// gets an equal share of 1 - a_c. Within a basket, the weights keep their proportions:
//   a'_j = (1 - a_c) / m * a_j / (sum of a over j's basket), a'_c = a_c;  a_j <- l a'_j + (1 - l) a_j
// This applies to the last ceil(s L) of L layers. `l` is the strength.
// * With CLS or LAST pooling, only the row of the pooled token c is calibrated, and c is in no basket.
// * With mean pooling, spans, token vectors or sparse vectors, every row is calibrated, and there is no c.
// * In causal models, a row's baskets are those with a key that it sees. Its last basket holds only these keys.
// * Layers of local attention count among the L layers but are not changed, as under every part of an extension.
// * If n <= B or l = 0, attention is bitwise equal to plain attention.
// The a_j are the weights after the softmax, whatever rotations or biases gave the scores. Plain values and pure
// functions that any thread can use.
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
    // This form of the comparison refuses NaN.
    if (layers > 0 && layers <= 1) return absl::OkStatus();
    return ExtensionValueOutOfRange("attention_calibration.layers", absl::StrCat(layers), "above 0, at most 1");
  }

  // Returns the calibration of a sequence of n tokens.
  Calibration Resolve(const ModelManifest& model, int64_t n) const {
    if (strength == 0 || n <= basket) return {};
    // The factor slightly below 1 compensates for rounding: 0.1 * 30 is 3.0000000000000004 in double.
    const auto count = static_cast<int64_t>(std::ceil(layers * model.layers * (1 - 1e-12)));
    return {.strength = strength, .basket = basket, .layers = count};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_ATTENTION_CALIBRATION_H_
