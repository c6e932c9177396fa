#include "server/batching/decayed_ratio.h"

#include <gtest/gtest.h>

#include <cmath>

namespace longembed {
namespace {

TEST(DecayedRatioTest, IsZeroUntilSomethingIsAdded) {
  DecayedRatio ratio(/*memory=*/5);
  EXPECT_EQ(ratio.value(), 0);
  ratio.Add(6, 3);
  EXPECT_DOUBLE_EQ(ratio.value(), 2);
}

TEST(DecayedRatioTest, StartsWithTheAssumption) { EXPECT_DOUBLE_EQ(DecayedRatio(5, 0.3).value(), 0.3); }

// The expected value is computed by hand: the assumption has weight 5 and decays by exp(-2 / 5).
TEST(DecayedRatioTest, WeighsObservationsByTheDenominator) {
  DecayedRatio ratio(/*memory=*/5, /*assumed=*/1);
  ratio.Add(8, 2);
  const double decayed = 5 * std::exp(-0.4);
  EXPECT_DOUBLE_EQ(ratio.value(), (decayed + 8) / (decayed + 2));
}

TEST(DecayedRatioTest, ForgetsOldObservations) {
  DecayedRatio ratio(/*memory=*/5, /*assumed=*/100);
  for (int i = 0; i < 100; ++i) ratio.Add(2, 1);
  EXPECT_NEAR(ratio.value(), 2, 1e-3);
}

// A sample may add to the numerator only, as the time of helpers does.
TEST(DecayedRatioTest, AddsToTheNumeratorOnly) {
  DecayedRatio ratio(/*memory=*/5);
  ratio.Add(0, 4);
  ratio.Add(2, 0);
  EXPECT_DOUBLE_EQ(ratio.value(), 0.5);
}

}  // namespace
}  // namespace longembed
