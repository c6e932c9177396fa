#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "model/plan/extension.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

ModelManifest Trained(int window, Family family = Family::kRope) {
  ModelManifest model = family == Family::kRope ? FakeRopeManifest() : FakeManifest();
  model.trained_window = model.plain_limit = model.position_rows = window;
  return model;
}

// Checks LongEmbed's settings: n = s Lo tokens -> (g, w).
TEST(MethodsTest, AdaptiveSelfExtendHasThePublishedSettings) {
  struct Setting {
    int window, tokens, group, neighbors;
  };
  for (const Setting& s : {Setting{512, 1024, 3, 256}, Setting{512, 2048, 5, 128}, Setting{512, 4096, 9, 64},
                           Setting{4096, 8192, 3, 2048}, Setting{4096, 16384, 5, 1024}, Setting{4096, 32768, 9, 512}}) {
    const Positions resolved = PositionsOf(Trained(s.window), {.positions = SelfExtend{}}, s.tokens);
    EXPECT_EQ(resolved.group, s.group);
    EXPECT_EQ(resolved.neighbor_window, s.neighbors);
    // If only one of the two is given, the other must follow as in the paper.
    EXPECT_EQ(PositionsOf(Trained(s.window), {.positions = SelfExtend{.group = s.group}}, s.tokens).neighbor_window,
              s.neighbors);
    EXPECT_EQ(PositionsOf(Trained(s.window), {.positions = SelfExtend{.neighbor_window = s.neighbors}}, s.tokens).group,
              s.group);
    EXPECT_EQ(SequenceCapacity(Trained(s.window), {.positions = SelfExtend{s.group, s.neighbors}}), s.tokens);
  }
}

// For any length and any choice of parameters, relative positions must stay within the trained window.
TEST(MethodsTest, SelfExtendStaysWithinTheTrainedWindow) {
  std::mt19937 random(4);
  for (int i = 0; i < 2000; ++i) {
    const int window = std::uniform_int_distribution(16, 600)(random);
    const int n = std::uniform_int_distribution(1, 8 * window)(random);
    SelfExtend asked;
    switch (i % 3) {
      case 1:
        asked.group = std::uniform_int_distribution(2, 20)(random);
        break;
      case 2:
        asked.neighbor_window = std::uniform_int_distribution(1, window - 1)(random);
        break;
    }
    const Extension extension{.positions = asked};
    if (n > SequenceCapacity(Trained(window), extension).value_or(n)) continue;
    const Positions resolved = PositionsOf(Trained(window), extension, n);
    if (n <= window) {
      EXPECT_TRUE(resolved.is_plain());
      continue;
    }
    ASSERT_STREQ(resolved.method, "self_extend") << "n " << n << " window " << window;
    const int64_t g = resolved.group, w = resolved.neighbor_window;
    ASSERT_GE(w, 1);
    ASSERT_LT(w, window);
    EXPECT_LE((n - 1) / g + w - w / g, window) << "n " << n << " window " << window << " g " << g << " w " << w;
  }
}

// Checks the paper's defaults S = Lo / 3 and W = 128, that W is at most S / 2 for a short window, and the capacity.
TEST(MethodsTest, ShiftedRotaryHasThePapersDefaults) {
  struct Setting {
    int window, shift_from, local_window;
  };
  for (const Setting& s : {Setting{131072, 43690, 128}, Setting{4096, 1365, 128}, Setting{512, 170, 85}}) {
    const ModelManifest model = Trained(s.window);
    const Positions resolved = PositionsOf(model, {.positions = ShiftedRotary{}}, s.window);
    EXPECT_STREQ(resolved.method, "shifted_rotary");
    EXPECT_EQ(resolved.neighbor_window, s.shift_from);
    EXPECT_EQ(resolved.neighbor_window + resolved.far_shift, s.local_window);
    EXPECT_EQ(SequenceCapacity(model, {.positions = ShiftedRotary{}}), s.window + s.shift_from - s.local_window);
    EXPECT_TRUE(PositionsOf(model, {.positions = ShiftedRotary{}}, s.shift_from).is_plain());
  }
  EXPECT_EQ(SequenceCapacity(Trained(512), {.positions = ShiftedRotary{512, 0}}), 1024);
  for (const int64_t negative : {int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    EXPECT_FALSE(CheckExtension(Trained(512), {.positions = ShiftedRotary{512, negative}}).ok()) << negative;
  }
}

const PositionsMethod kAdaptive[] = {Grouped{},    Recurrent{}, Interpolation{}, NtkDynamic{},
                                     NtkByParts{}, Yarn{},      SelfExtend{},    NtkDynamic{.factor = 3}};

TEST(MethodsTest, AdaptiveMethodsLeaveSequencesWithinLoPlain) {
  for (const PositionsMethod& positions : kAdaptive) {
    for (const int64_t n : {1, 2, 31, 32}) {
      const Positions resolved = PositionsOf(Trained(32), {.positions = positions, .attention_log_scaling = true}, n);
      EXPECT_TRUE(resolved.is_plain()) << "method " << positions.index() << " n " << n;
      EXPECT_EQ(resolved.query_scale, 1);
    }
    EXPECT_FALSE(PositionsOf(Trained(32), {.positions = positions}, 33).is_plain()) << positions.index();
  }
}

TEST(MethodsTest, AFactorOfOneIsTheIdentityOfEveryScaling) {
  const PositionsMethod identities[] = {Grouped{1},         Interpolation{1},        Ntk{.factor = 1},
                                        Ntk{.base = 10000}, NtkByParts{.factor = 1}, Yarn{.factor = 1}};
  for (const PositionsMethod& positions : identities) {
    for (const int64_t n : {1, 16, 32}) {
      const Positions resolved = PositionsOf(Trained(32), {.positions = positions}, n);
      EXPECT_TRUE(resolved.is_plain()) << positions.index();
    }
  }
}

TEST(MethodsTest, AdaptiveFactorsFollowTheLength) {
  EXPECT_EQ(PositionsOf(Trained(32), {.positions = Grouped{}}, 65).factor, 3);
  EXPECT_EQ(PositionsOf(Trained(32), {.positions = Interpolation{}}, 80).factor, 2.5);
  EXPECT_EQ(PositionsOf(Trained(32), {.positions = Yarn{}}, 64).factor, 2);
}

TEST(MethodsTest, NtkBases) {
  ModelManifest model = Trained(4096);
  model.head_dim = model.rotary_dim = 128;
  EXPECT_NEAR(PositionsOf(model, {.positions = Ntk{.factor = 8}}, 100).base.value() / 10000, 8.268, 0.001);
  EXPECT_EQ(PositionsOf(model, {.positions = Ntk{.base = 100000}}, 100).base, 100000);
  // The factor is f n / Lo - (f - 1) = 3 * 2 - 2.
  EXPECT_NEAR(PositionsOf(model, {.positions = NtkDynamic{.factor = 3}}, 8192).base.value(),
              10000 * std::pow(4, 128.0 / 126), 1e-6);
}

TEST(MethodsTest, LogScalingDependsOnTheSequencesLength) {
  const Extension extension{.attention_log_scaling = true};
  EXPECT_NEAR(PositionsOf(Trained(512), extension, 4096).query_scale, 12.0 / 9.0, 1e-12);
  EXPECT_EQ(PositionsOf(Trained(512), extension, 300).query_scale, 1);
}

TEST(MethodsTest, TemperatureMultipliesWithLogScaling) {
  const Extension extension{.attention_log_scaling = true, .attention_temperature = 0.5};
  EXPECT_NEAR(PositionsOf(Trained(512), extension, 4096).query_scale, 2 * 12.0 / 9.0, 1e-12);
  EXPECT_EQ(PositionsOf(Trained(512), extension, 300).query_scale, 2);
  EXPECT_EQ(PositionsOf(Trained(512), {.attention_temperature = 1}, 300).query_scale, 1);
}

TEST(MethodsTest, CalibrationAppliesToTheLastLayersAndBeyondOneBasket) {
  ModelManifest model = Trained(512);
  const auto layers = [&model](int count, double share) {
    model.layers = count;
    return PositionsOf(model, {.attention_calibration = AttentionCalibration{.layers = share}}, 129).calibration.layers;
  };
  EXPECT_EQ(layers(12, 0.5), 6);
  EXPECT_EQ(layers(7, 0.5), 4);
  EXPECT_EQ(layers(30, 0.1), 3);
  EXPECT_EQ(layers(12, 1e-9), 1);
  EXPECT_EQ(layers(12, 1), 12);
  EXPECT_EQ(PositionsOf(model, {.attention_calibration = AttentionCalibration{}}, 128).calibration.layers, 0);
  EXPECT_EQ(PositionsOf(model, {.attention_calibration = AttentionCalibration{.strength = 0}}, 999).calibration.layers,
            0);
}

TEST(MethodsTest, TableRows) {
  using ::testing::ElementsAre;
  const ModelManifest model = Trained(4, Family::kApe);
  const auto positions = [&](const PositionsMethod& method, int64_t n) {
    return TableRows(model, PositionsOf(model, {.positions = method}, n), n);
  };
  EXPECT_THAT(positions(PlainPositions{}, 4), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(positions(Grouped{}, 6), ElementsAre(0, 0, 1, 1, 2, 2));
  EXPECT_THAT(positions(Recurrent{}, 6), ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(positions(Interpolation{2.5}, 4), ElementsAre(0, 0.4f, 0.8f, 1.2f));
}

// The table of model/plan/README.md must have a row for each method, in the order of all.h.
TEST(MethodsTest, ThePageHasThem) {
  std::ifstream page(LONGEMBED_METHOD_PAGE);
  std::vector<std::string> rows, methods;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("| `")) rows.push_back(line.substr(3, line.find('`', 3) - 3));
  }
  ForEachMethod([&methods](const auto& method) { methods.emplace_back(method.kName); });
  std::erase_if(rows, [&methods](const std::string& row) { return std::ranges::find(methods, row) == methods.end(); });
  EXPECT_EQ(rows, methods);
}

}  // namespace
}  // namespace longembed
