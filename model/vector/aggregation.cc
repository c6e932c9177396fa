#include "model/vector/aggregation.h"

#include <algorithm>

namespace longembed {
namespace {

std::vector<float> WeightedMean(std::span<const std::vector<float>> rows, std::span<const int32_t> weights) {
  std::vector<double> sums(rows.front().size());
  double total = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const double weight = weights.empty() ? 1 : weights[i];
    total += weight;
    for (size_t j = 0; j < sums.size(); ++j) sums[j] += weight * static_cast<double>(rows[i][j]);
  }
  std::vector<float> mean(sums.size());
  for (size_t j = 0; j < sums.size(); ++j) mean[j] = static_cast<float>(sums[j] / total);
  return mean;
}

std::vector<float> ElementwiseMax(std::span<const std::vector<float>> rows) {
  std::vector<float> most = rows.front();
  for (const std::vector<float>& row : rows.subspan(1)) {
    // The comparison this way round lets a NaN through, so that it is found later instead of vanishing here.
    std::ranges::transform(most, row, most.begin(), [](float a, float b) { return a >= b ? a : (a < b ? b : a + b); });
  }
  return most;
}

}  // namespace

std::vector<float> Aggregate(Aggregation aggregation, std::span<const std::vector<float>> rows,
                             std::span<const int32_t> weights) {
  if (rows.size() == 1) return rows.front();  // To the last bit.
  switch (aggregation) {
    case Aggregation::kFirst:
      return rows.front();
    case Aggregation::kMax:
      return ElementwiseMax(rows);
    case Aggregation::kTokenWeightedMean:
      return WeightedMean(rows, weights);
    case Aggregation::kMean:
      break;
  }
  return WeightedMean(rows, {});
}

}  // namespace longembed
