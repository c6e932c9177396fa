// A sparse head without a network, for the token vectors of FakeEncoder.
#ifndef LONGEMBED_TESTS_TESTING_FAKE_SPARSE_HEAD_H_
#define LONGEMBED_TESTS_TESTING_FAKE_SPARSE_HEAD_H_

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <span>
#include <vector>

#include "model/encoder/sparse_head.h"

namespace longembed {

// Gives each token of a part the weight 100 * its id + the length of its sequence. The ids are taken from the tokens,
// and the weights from the hidden states. Equal tokens become one entry, with the largest weight or the sum of the
// weights.
class FakeSparseHead final : public SparseHead {
 public:
  explicit FakeSparseHead(SparseSum sum = SparseSum::kMax) : sum_(sum) {}

  absl::StatusOr<std::vector<SparseVector>> Run(std::span<const float> hidden, std::span<const int32_t> tokens,
                                                std::span<const int32_t> offsets) override {
    const size_t width = hidden.size() / tokens.size();
    most_rows_ = std::max(most_rows_.load(), static_cast<int>(tokens.size()));
    std::vector<SparseVector> vectors;
    for (size_t part = 0; part + 1 < offsets.size(); ++part) {
      std::map<int32_t, float> weights;
      for (int32_t row = offsets[part]; row < offsets[part + 1]; ++row) {
        const float* h = &hidden[static_cast<size_t>(row) * width];
        float& weight = weights[tokens[row]];
        const float own = 100 * h[0] + h[2];
        const bool largest = sum_ == SparseSum::kMax && !std::isnan(own);
        weight = largest ? std::max(weight, own) : weight + own;
      }
      SparseVector& vector = vectors.emplace_back();
      for (const auto& [id, weight] : weights) {
        vector.indices.push_back(id);
        vector.values.push_back(weight);
      }
    }
    return vectors;
  }

  SparseSum sum() const override { return sum_; }
  int most_rows() const { return most_rows_; }  // The most rows of any call so far.

 private:
  const SparseSum sum_;
  std::atomic<int> most_rows_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_SPARSE_HEAD_H_
