#include "model/plan/rotary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>
#include <random>
#include <thread>

#include "model/plan/extension.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAreArray;
using ::testing::Pointwise;

ModelManifest RopeModel(int dim, int window) {
  ModelManifest model = FakeRopeManifest();
  model.head_dim = model.rotary_dim = dim;
  model.trained_window = model.plain_limit = window;
  return model;
}

Positions By(const ModelManifest& model, const PositionsMethod& positions, int64_t n, bool resonance = false) {
  return PositionsOf(model, {.positions = positions, .resonance = resonance}, n);
}

// Checks published numbers of the ramp: the first pair that is changed is low + 1, and the first pair that is fully
// interpolated is high.
TEST(RotaryTest, RampsOfTheModelsOfThePaper) {
  struct Ramp {
    int dim, window;
    size_t low, high;
  };
  for (const Ramp& ramp : {Ramp{64, 512, 3, 16}, Ramp{128, 4096, 20, 46}}) {
    const ModelManifest model = RopeModel(ramp.dim, ramp.window);
    const std::vector<double> plain = RotaryFrequencies(model, Positions());
    const std::vector<double> scaled = RotaryFrequencies(model, By(model, NtkByParts{.factor = 8}, 8 * ramp.window));
    for (size_t j = 0; j < plain.size(); ++j) {
      // 0 means unchanged, and 1 means interpolated.
      const double share = (plain[j] - scaled[j]) / (plain[j] - plain[j] / 8);
      const double wanted = std::clamp(
          (static_cast<double>(j) - static_cast<double>(ramp.low)) / static_cast<double>(ramp.high - ramp.low), 0.0,
          1.0);
      EXPECT_NEAR(share, wanted, 1e-9) << "pair " << j;
    }
  }
}

// Checks gte-multilingual-base, whose published code has NTKScalingRotaryEmbedding with base 20,000, factor 8 and 64
// components.
TEST(RotaryTest, AFactorOfTheModelScalesEveryFrequency) {
  ModelManifest model = RopeModel(64, 8192);
  model.rotary_base = 160000;
  model.rotary_factor = std::pow(8.0, 2.0 / 64);
  const std::vector<double> plain = RotaryFrequencies(model, Positions());
  for (size_t j = 0; j < plain.size(); ++j) {
    EXPECT_NEAR(plain[j] / (std::pow(20000.0 * 8, -2.0 * static_cast<double>(j) / 64) / std::pow(8.0, 2.0 / 64)), 1,
                1e-12);
  }
  const std::vector<double> halved = RotaryFrequencies(model, By(model, Interpolation{.factor = 2}, 16384));
  for (size_t j = 0; j < plain.size(); ++j) EXPECT_NEAR(halved[j] / plain[j], 0.5, 1e-12);
}

// A pair makes the same number of turns within Lo if a factor of 2 slows it down, or if Lo is half as long.
TEST(RotaryTest, ARampKnowsTheFactorOfTheModel) {
  ModelManifest slowed = RopeModel(64, 1024);
  const ModelManifest half = RopeModel(64, 512);
  slowed.rotary_factor = 2;
  const std::vector<double> wanted = RotaryFrequencies(half, By(half, NtkByParts{.factor = 8}, 4096));
  const std::vector<double> scaled = RotaryFrequencies(slowed, By(slowed, NtkByParts{.factor = 8}, 8192));
  for (size_t j = 0; j < wanted.size(); ++j) EXPECT_NEAR(2 * scaled[j] / wanted[j], 1, 1e-12) << "pair " << j;
}

// Tests LongRoPE's two tables and the methods that may go with them: interpolation and Resonance apply on top, but
// another base does not.
TEST(RotaryTest, AModelsOwnScalingDividesEachPair) {
  ModelManifest model = RopeModel(8, 512);
  const std::vector<double> plain = RotaryFrequencies(model, Positions());
  model.rotary_scaling = RotaryScaling{
      .kind = "longrope", .factors = {1, 2, 3, 4}, .long_factors = {5, 6, 7, 8}, .long_from = 100, .amplitude = 1.5};
  for (const int64_t n : {1, 100, 101, 512}) {
    const std::vector<double> scaled = RotaryFrequencies(model, PositionsOf(model, {}, n));
    for (size_t j = 0; j < plain.size(); ++j) {
      EXPECT_NEAR(plain[j] / scaled[j], static_cast<double>(j) + (n > 100 ? 5 : 1), 1e-9) << "pair " << j << " n " << n;
    }
  }
  const Positions halved = PositionsOf(model, {.positions = Interpolation{2}}, 1000);
  const std::vector<double> both = RotaryFrequencies(model, halved);
  for (size_t j = 0; j < plain.size(); ++j) EXPECT_NEAR(plain[j] / both[j], 2 * (static_cast<double>(j) + 5), 1e-9);
  EXPECT_EQ(RotaryAmplitude(model, halved), 1.5);
  for (const PositionsMethod& other : {PositionsMethod(Ntk{.factor = 2}), PositionsMethod(NtkDynamic{}),
                                       PositionsMethod(NtkByParts{}), PositionsMethod(Yarn{})}) {
    const absl::Status refused = CheckExtension(model, {.positions = other});
    EXPECT_EQ(ErrorReason(refused), "METHOD_NOT_AVAILABLE");
    EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("the checkpoint's own scaling, longrope"));
  }
  EXPECT_TRUE(CheckExtension(model, {.positions = SelfExtend{}}).ok());
  EXPECT_TRUE(CheckExtension(model, {.positions = Interpolation{}, .resonance = true}).ok());
  EXPECT_THAT(MethodsOf(model), ::testing::Not(::testing::Contains("yarn")));
  EXPECT_THAT(MethodsOf(model), ::testing::Contains("shifted_rotary"));
}

TEST(RotaryTest, OnlyYarnHasAnAmplitude) {
  const ModelManifest model = RopeModel(64, 512);
  EXPECT_NEAR(By(model, Yarn{.factor = 8}, 4096).amplitude, 1.2079, 1e-4);
  EXPECT_EQ(By(model, NtkByParts{.factor = 8}, 4096).amplitude, 1);
  EXPECT_EQ(Positions().amplitude, 1);
}

TEST(RotaryTest, ResonanceMakesWavelengthsWhole) {
  const ModelManifest model = RopeModel(64, 512);
  for (const PositionsMethod& positions :
       {PositionsMethod(PlainPositions{}), PositionsMethod(Interpolation{3}), PositionsMethod(Yarn{.factor = 4})}) {
    const std::vector<double> before = RotaryFrequencies(model, By(model, positions, 1500));
    const std::vector<double> after = RotaryFrequencies(model, By(model, positions, 1500, true));
    for (size_t j = 0; j < after.size(); ++j) {
      const double length = 2 * std::numbers::pi / after[j];
      EXPECT_NEAR(length, std::round(length), 1e-9 * length);
      EXPECT_LE(std::abs(length - 2 * std::numbers::pi / before[j]), 0.5 + 1e-9);
    }
  }
}

// Compares with powers of one complex number per pair, without any cosine or sine.
TEST(RotaryTest, RowsArePowersOfARotation) {
  const ModelManifest model = RopeModel(16, 64);
  for (const PositionsMethod& positions :
       {PositionsMethod(PlainPositions{}), PositionsMethod(Yarn{.factor = 3}), PositionsMethod(Ntk{.base = 40000})}) {
    const Positions resolved = By(model, positions, 150);
    const std::vector<double> frequencies = RotaryFrequencies(model, resolved);
    const double amplitude = resolved.amplitude;
    const RotaryTable table = MakeRotaryTable(frequencies, amplitude, 150);
    ASSERT_EQ(table.rows(), 150);
    for (size_t j = 0; j < frequencies.size(); ++j) {
      const std::complex<long double> step = std::exp(std::complex<long double>(0, frequencies[j]));
      std::complex<long double> turn = amplitude;
      for (size_t p = 0; p < 150; ++p, turn *= step) {
        EXPECT_NEAR(table.cos[p * 8 + j], static_cast<double>(turn.real()), 1e-7);
        EXPECT_NEAR(table.sin[p * 8 + j], static_cast<double>(turn.imag()), 1e-7);
      }
    }
  }
}

TEST(RotaryTest, PositionsFarOutKeepTheirDigits) {
  const std::vector<double> frequencies{1.0};
  const RotaryTable table = MakeRotaryTable(frequencies, 1, 131072);
  for (const size_t p : {size_t{2049}, size_t{32767}, size_t{131071}}) {
    EXPECT_NEAR(table.cos[p], static_cast<double>(std::cos(static_cast<long double>(p))), 1e-7);
  }
}

TEST(RotaryTableCacheTest, AShortSequenceAfterALongOneIsAsIfAlone) {
  std::mt19937 random(8);
  const ModelManifest model = RopeModel(16, 64);
  const PositionsMethod methods[] = {PlainPositions{}, NtkDynamic{}, Yarn{}, Interpolation{}, NtkByParts{.factor = 9}};
  RotaryTableCache used(1 << 16);  // The cache is small, so that entries are added and dropped.
  for (int i = 0; i < 500; ++i) {
    const Positions resolved = By(model, methods[random() % std::size(methods)], 1 + random() % 500, random() % 2 == 0);
    const int64_t rows = 1 + static_cast<int64_t>(random() % 500);
    const std::vector<double> frequencies = RotaryFrequencies(model, resolved);
    const auto cached = used.Get(frequencies, resolved.amplitude, rows);
    const RotaryTable fresh = MakeRotaryTable(frequencies, resolved.amplitude, rows);
    ASSERT_GE(cached->rows(), rows);
    ASSERT_TRUE(std::equal(fresh.cos.begin(), fresh.cos.end(), cached->cos.begin()));
    ASSERT_TRUE(std::equal(fresh.sin.begin(), fresh.sin.end(), cached->sin.begin()));
  }
}

TEST(RotaryTableCacheTest, EqualSequencesShareATable) {
  RotaryTableCache cache;
  const std::vector<double> frequencies{1, 0.5}, others{1, 0.25};
  const auto table = cache.Get(frequencies, 1, 100);
  EXPECT_EQ(cache.Get(frequencies, 1, 7), table);
  EXPECT_NE(cache.Get(others, 1, 7), table);
  EXPECT_NE(cache.Get(frequencies, 1.5, 7), table);
}

// Frequencies that adapt to the length of a text are valid for one length only. Rows beyond it would never be read.
TEST(RotaryTableCacheTest, ATableIsAsLongAsItsTextUntilOneIsLonger) {
  RotaryTableCache cache;
  const std::vector<double> frequencies{1, 0.5};
  EXPECT_EQ(cache.Get(frequencies, 1, 100)->rows(), 100);
  const auto longer = cache.Get(frequencies, 1, 101);
  EXPECT_EQ(longer->rows(), 128);
  EXPECT_EQ(cache.Get(frequencies, 1, 128), longer);
  EXPECT_EQ(cache.Get(frequencies, 1, 129)->rows(), 256);
}

TEST(RotaryTableCacheTest, ManyThreadsAtOnce) {
  RotaryTableCache cache(1 << 12);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int i = 1; i < 300; ++i) {
        const std::vector<double> frequencies{1.0 / (1 + (i + t) % 5)};
        const auto table = cache.Get(frequencies, 1, i);
        ASSERT_FLOAT_EQ(table->cos[static_cast<size_t>(i - 1)], static_cast<float>(std::cos((i - 1) * frequencies[0])));
      }
    });
  }
}

}  // namespace
}  // namespace longembed
