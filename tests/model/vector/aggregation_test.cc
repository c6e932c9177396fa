#include "model/vector/aggregation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace longembed {
namespace {

using ::testing::ElementsAre;

const std::vector<std::vector<float>> kRows{{1, -8, 0}, {4, -2, 3}, {1, -5, 9}};
const std::vector<int32_t> kWeights{1, 1, 4};

TEST(AggregationTest, EachOfThem) {
  EXPECT_THAT(Aggregate(Aggregation::kMean, kRows, kWeights), ElementsAre(2, -5, 4));
  EXPECT_THAT(Aggregate(Aggregation::kTokenWeightedMean, kRows, kWeights), ElementsAre(1.5f, -5, 6.5f));
  EXPECT_THAT(Aggregate(Aggregation::kMax, kRows, kWeights), ElementsAre(4, -2, 9));
  EXPECT_THAT(Aggregate(Aggregation::kFirst, kRows, kWeights), ElementsAre(1, -8, 0));
}

// It is found later, and becomes an error.
TEST(AggregationTest, KeepsWhatIsNotANumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<std::vector<float>>& rows : {std::vector<std::vector<float>>{{nan, 1}, {2, 3}, {4, 5}},
                                                      {{2, 3}, {nan, 1}, {4, 5}},
                                                      {{2, 3}, {4, 5}, {nan, 1}}}) {
    for (const auto aggregation : {Aggregation::kMean, Aggregation::kTokenWeightedMean, Aggregation::kMax}) {
      EXPECT_TRUE(std::isnan(Aggregate(aggregation, rows, kWeights)[0]));
    }
  }
}

TEST(AggregationTest, OfOneWindowIsThatWindow) {
  const std::vector<std::vector<float>> row{{0.1f, 0.7f}};
  for (const auto aggregation :
       {Aggregation::kMean, Aggregation::kTokenWeightedMean, Aggregation::kMax, Aggregation::kFirst}) {
    EXPECT_EQ(Aggregate(aggregation, row, std::vector<int32_t>{7}), row[0]);
  }
}

}  // namespace
}  // namespace longembed
