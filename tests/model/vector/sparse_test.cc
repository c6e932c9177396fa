#include "model/vector/sparse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(CombineTest, TakesTheMaximumOrTheSumOfEachIndex) {
  const std::vector<SparseVector> parts{{{1, 4, 9}, {1, 5, 2}}, {{4, 5}, {3, 7}}, {}};
  EXPECT_EQ(Combine(parts, SparseSum::kMax), (SparseVector{{1, 4, 5, 9}, {1, 5, 7, 2}}));
  EXPECT_EQ(Combine(parts, SparseSum::kAdd), (SparseVector{{1, 4, 5, 9}, {1, 8, 7, 2}}));
}

TEST(CombineTest, OfNothingIsNothing) {
  EXPECT_THAT(Combine({}, SparseSum::kMax).indices, IsEmpty());
  EXPECT_EQ(Combine(std::vector<SparseVector>{{}, {}}, SparseSum::kMax), SparseVector());
}

TEST(CombineTest, LosesNoNan) {
  for (const auto& [a, b] : {std::pair{kNan, 1.0f}, {1.0f, kNan}}) {
    const SparseVector merged = Combine(std::vector<SparseVector>{{{3}, {a}}, {{3}, {b}}}, SparseSum::kMax);
    ASSERT_EQ(merged.size(), 1);
    EXPECT_TRUE(std::isnan(merged.values[0]));
  }
}

// Compares with a map, which is slow and simple.
TEST(CombineTest, MatchesAMap) {
  std::mt19937 random(1);
  for (const SparseSum sum : {SparseSum::kMax, SparseSum::kAdd}) {
    std::map<int32_t, float> expected;
    std::vector<SparseVector> parts;
    for (int part = 0; part < 7; ++part) {
      SparseVector& vector = parts.emplace_back();
      for (int32_t index = 0; index < 50; ++index) {
        if (random() % 3 != 0) continue;
        const auto value = static_cast<float>(1 + random() % 100);
        vector.indices.push_back(index);
        vector.values.push_back(value);
        float& all = expected[index];
        all = sum == SparseSum::kMax ? std::max(all, value) : all + value;
      }
    }
    SparseVector flat;
    for (const auto& [index, value] : expected) {
      flat.indices.push_back(index);
      flat.values.push_back(value);
    }
    EXPECT_EQ(Combine(parts, sum), flat);
  }
}

TEST(KeepLargestTest, KeepsTheLargestInTheirOrderAndOfEqualOnesTheFirst) {
  SparseVector vector{{2, 3, 5, 7, 8}, {1, 4, 2, 4, 2}};
  KeepLargest(3, vector);
  EXPECT_THAT(vector.indices, ElementsAre(3, 5, 7));
  EXPECT_THAT(vector.values, ElementsAre(4, 2, 4));
  KeepLargest(3, vector);
  EXPECT_EQ(vector.size(), 3);
  KeepLargest(1, vector);
  EXPECT_EQ(vector, (SparseVector{{3}, {4}}));
}

}  // namespace
}  // namespace longembed
