#include "model/vector/vector.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "model/errors/errors.h"

namespace longembed {
namespace {

TEST(VectorTest, NormalizesToLengthOne) {
  std::vector<float> vector{3, 0, -4};
  ASSERT_TRUE(Normalize(vector).ok());
  EXPECT_EQ(vector, (std::vector<float>{0.6f, 0, -0.8f}));
  std::vector<float> huge{3e38f, 3e38f};
  ASSERT_TRUE(Normalize(huge).ok());
  EXPECT_FLOAT_EQ(huge[0], std::sqrt(0.5f));
  std::vector<float> tiny{1e-42f, 0};
  ASSERT_TRUE(Normalize(tiny).ok());
  EXPECT_EQ(tiny[0], 1.0f);
}

TEST(VectorTest, RefusesVectorsWithoutADirection) {
  for (const float bad : {0.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> vector{bad, 0};
    EXPECT_EQ(ErrorReason(Normalize(vector)), "UNUSABLE_VECTOR") << bad;
  }
  EXPECT_FALSE(AllFinite(std::vector<float>{1, NAN}));
  EXPECT_TRUE(AllFinite(std::vector<float>{1, 0}));
}

TEST(VectorTest, ResolvesDimensions) {
  const std::vector<int> trained{128, 384};
  EXPECT_EQ(*ResolveDimensions({}, trained), 384);
  EXPECT_EQ(*ResolveDimensions({.dimensions = 128}, trained), 128);
  EXPECT_EQ(*ResolveDimensions({.dimensions = 100, .force = true}, trained), 100);
  EXPECT_EQ(ErrorReason(ResolveDimensions({.dimensions = 100}, trained).status()), "DIMENSIONS_NOT_TRAINED");
  for (const int64_t bad : {0, -1, 385}) {
    EXPECT_EQ(ErrorReason(ResolveDimensions({.dimensions = bad, .force = true}, trained).status()),
              "DIMENSIONS_OUT_OF_RANGE");
  }
}

}  // namespace
}  // namespace longembed
