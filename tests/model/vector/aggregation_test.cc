#include "model/vector/aggregation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

const std::vector<std::vector<float>> kRows{{1, -8, 0}, {4, -2, 3}, {1, -5, 9}};
const std::vector<int32_t> kWeights{1, 1, 4};

TEST(AggregationTest, MeanTokenWeightedMeanMaxAndFirst) {
  EXPECT_THAT(Aggregate({.aggregation = Aggregation::kMean}, kRows, kWeights), ElementsAre(2, -5, 4));
  EXPECT_THAT(Aggregate({.aggregation = Aggregation::kTokenWeightedMean}, kRows, kWeights),
              ElementsAre(1.5f, -5, 6.5f));
  EXPECT_THAT(Aggregate({.aggregation = Aggregation::kMax}, kRows, kWeights), ElementsAre(4, -2, 9));
  EXPECT_THAT(Aggregate({.aggregation = Aggregation::kFirst}, kRows, kWeights), ElementsAre(1, -8, 0));
}

// The norms are 3, 4 and 5.
const std::vector<std::vector<float>> kByNorm{{3, 0}, {0, 4}, {3, 4}};

TEST(AggregationTest, NormWeightedIsASoftmaxOfNorms) {
  for (const double temperature : {0.5, 1.0, 7.0}) {
    Windows windows{.aggregation = Aggregation::kNormWeighted, .norm_temperature = temperature};
    if (temperature == 1) windows.norm_temperature = std::nullopt;
    const double a = std::exp(3 / temperature), b = std::exp(4 / temperature), c = std::exp(5 / temperature);
    EXPECT_THAT(Aggregate(windows, kByNorm, kWeights),
                ElementsAre(FloatNear(static_cast<float>((3 * a + 3 * c) / (a + b + c)), 1e-6f),
                            FloatNear(static_cast<float>((4 * b + 4 * c) / (a + b + c)), 1e-6f)));
  }
  const std::vector<std::vector<float>> large{{3e20f, 0}, {0, 4e20f}};
  EXPECT_THAT(Aggregate({.aggregation = Aggregation::kNormWeighted, .norm_temperature = 0.001}, large, kWeights),
              ElementsAre(0, 4e20f));
}

TEST(AggregationTest, TopNormIsTheMeanOfTheGreatest) {
  const auto top = [](std::optional<int64_t> count, const std::vector<std::vector<float>>& rows) {
    return Aggregate({.aggregation = Aggregation::kTopNorm, .top = count}, rows, {});
  };
  EXPECT_THAT(top(1, kByNorm), ElementsAre(3, 4));
  EXPECT_THAT(top(2, kByNorm), ElementsAre(1.5f, 4));
  EXPECT_EQ(top(3, kByNorm), Aggregate({}, kByNorm, {}));
  EXPECT_EQ(top(9, kByNorm), Aggregate({}, kByNorm, {}));
  const std::vector<std::vector<float>> four{{0, 1}, {2, 0}, {0, 2}, {-4, 0}};
  EXPECT_EQ(top(std::nullopt, four), top(3, four));
  // Of equal norms, the first counts.
  EXPECT_THAT(top(2, four), ElementsAre(-1, 0));
}

// Later code finds the NaN and reports an error.
TEST(AggregationTest, KeepsNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<std::vector<float>>& rows : {std::vector<std::vector<float>>{{nan, 1}, {2, 3}, {4, 5}},
                                                      {{2, 3}, {nan, 1}, {4, 5}},
                                                      {{2, 3}, {4, 5}, {nan, 1}}}) {
    for (const auto aggregation : {Aggregation::kMean, Aggregation::kTokenWeightedMean, Aggregation::kMax,
                                   Aggregation::kNormWeighted, Aggregation::kTopNorm}) {
      EXPECT_TRUE(std::isnan(Aggregate({.aggregation = aggregation}, rows, kWeights)[0]));
    }
    EXPECT_TRUE(std::isnan(Aggregate({.aggregation = Aggregation::kTopNorm, .top = 1}, rows, kWeights)[0]));
  }
}

TEST(AggregationTest, OfOneWindowIsThatWindow) {
  const std::vector<std::vector<float>> row{{0.1f, 0.7f}};
  for (const auto aggregation : {Aggregation::kMean, Aggregation::kTokenWeightedMean, Aggregation::kMax,
                                 Aggregation::kFirst, Aggregation::kNormWeighted, Aggregation::kTopNorm}) {
    EXPECT_EQ(Aggregate({.aggregation = aggregation}, row, std::vector<int32_t>{7}), row[0]);
  }
}

}  // namespace
}  // namespace longembed
