#include "model/vector/aggregation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace longembed {
namespace {

// Returns the weighted mean of the rows. Without weights, all rows count equally.
template <typename Weight>
std::vector<float> WeightedMean(std::span<const std::vector<float>> rows, std::span<const Weight> weights) {
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
    // This form of the comparison propagates NaN, so that a later check finds it.
    std::ranges::transform(most, row, most.begin(), [](float a, float b) { return a >= b ? a : (a < b ? b : a + b); });
  }
  return most;
}

std::vector<double> Norms(std::span<const std::vector<float>> rows) {
  std::vector<double> norms;
  norms.reserve(rows.size());
  for (const std::vector<float>& row : rows) {
    double squares = 0;
    for (const float value : row) squares += double{value} * value;
    norms.push_back(std::sqrt(squares));
  }
  return norms;
}

// Returns the mean with weights softmax(|v| / temperature). If a row is not finite, neither is the result.
std::vector<float> NormWeighted(std::span<const std::vector<float>> rows, double temperature) {
  std::vector<double> weights = Norms(rows);
  const double greatest = std::ranges::max(weights);
  for (double& weight : weights) weight = std::exp((weight - greatest) / temperature);
  return WeightedMean<double>(rows, weights);
}

// Returns the mean of the `top` rows with the greatest norms; among equal norms, earlier rows win. Rows that are not
// finite rank first, so that the order is well defined. They make the result not finite even with weight 0.
std::vector<float> TopNorm(std::span<const std::vector<float>> rows, int64_t top) {
  const std::vector<double> norms = Norms(rows);
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto rank = [&norms](size_t i) { return std::isfinite(norms[i]) ? norms[i] : HUGE_VAL; };
  std::ranges::stable_sort(order, std::greater(), rank);
  order.resize(static_cast<size_t>(std::min<int64_t>(top, std::ssize(rows))));
  std::vector<double> weights(rows.size());
  for (const size_t i : order) weights[i] = 1;
  return WeightedMean<double>(rows, weights);
}

}  // namespace

std::vector<float> Aggregate(const Windows& windows, std::span<const std::vector<float>> rows,
                             std::span<const int32_t> weights) {
  if (rows.size() == 1) return rows.front();  // Bitwise unchanged.
  switch (windows.aggregation) {
    case Aggregation::kNormWeighted:
      return NormWeighted(rows, windows.norm_temperature.value_or(Windows::kNormTemperature));
    case Aggregation::kTopNorm:
      return TopNorm(rows, windows.top.value_or(Windows::kTop));
    case Aggregation::kFirst:
      return rows.front();
    case Aggregation::kMax:
      return ElementwiseMax(rows);
    case Aggregation::kTokenWeightedMean:
      return WeightedMean(rows, weights);
    case Aggregation::kMean:
      break;
  }
  return WeightedMean<int32_t>(rows, {});
}

}  // namespace longembed
