#include "server/core/recipe.h"

#include <gtest/gtest.h>

#include <set>

#include "model/manifest/sha256.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

const RecipeOptions kPlain{.dimensions = 4, .encoding = "FLOAT32"};

TEST(RecipeTest, IsTheHashOfCanonicalJson) {
  const std::string json =
      R"({"dimensions":4,"encoding":"FLOAT32","extension":{},"files":{"encoder.pt":"00"},"model":{"family":"APE",)"
      R"("plain_limit":16,"pooling":"MEAN","position_stride":1,"rotary_base":0.0,"rotary_dim":0,"special_prefix":[1],)"
      R"("special_suffix":[2],"trained_window":16},"normalize":true,"plan_version":2,"precision":"fp32","truncate":"NONE"})";
  EXPECT_EQ(Recipe(FakeManifest(), kPlain), Sha256(json).substr(0, 32));
}

RecipeOptions With(const Extension& extension) {
  return {.extension = extension, .dimensions = 4, .encoding = "FLOAT32"};
}

TEST(RecipeTest, HoldsTheExtensionWithItsDefaults) {
  const std::string json =
      R"({"dimensions":4,"encoding":"FLOAT32","extension":{"resonance":true,"when":"LONG","windows":)"
      R"({"aggregation":"MEAN","last":"BACK_EXTENDED","overlap":0,"tokens":16},"yarn":{"beta_fast":32.0,"beta_slow":1.0,)"
      R"("factor":"adaptive"}},"files":{"encoder.pt":"00"},"model":{"family":"ROPE","plain_limit":16,"pooling":"MEAN",)"
      R"("position_stride":1,"rotary_base":10000.0,"rotary_dim":8,"special_prefix":[1],"special_suffix":[2],)"
      R"("trained_window":16},"normalize":true,"plan_version":2,"precision":"fp32","truncate":"NONE"})";
  const Extension extension{.windows = Windows{}, .positions = Yarn{}, .resonance = true};
  EXPECT_EQ(Recipe(FakeRopeManifest(), With(extension)), Sha256(json).substr(0, 32));
}

// Spans are means, however the model pools.
TEST(RecipeTest, SpansOfAModelThatDoesNotPoolByMeanHaveARecipeOfTheirOwn) {
  RecipeOptions spans = kPlain;
  spans.spans = true;
  EXPECT_EQ(Recipe(FakeManifest(), spans), Recipe(FakeManifest(), kPlain));
  ModelManifest cls = FakeManifest();
  cls.pooling = Pooling::kCls;
  EXPECT_NE(Recipe(cls, spans), Recipe(cls, kPlain));
}

TEST(RecipeTest, TheSumOverTokensIsNotTheMaximum) {
  ModelManifest max = FakeManifest(), sum = FakeManifest();
  max.sparse_head = SparseHeadKind::kSpladeMax;
  sum.sparse_head = SparseHeadKind::kSpladeSum;
  RecipeOptions sparse = kPlain;
  EXPECT_EQ(Recipe(sum, sparse), Recipe(max, sparse));  // Dense vectors do not come from the head.
  sparse.sparse = true;
  EXPECT_NE(Recipe(sum, sparse), Recipe(max, sparse));
}

TEST(RecipeTest, AnExtensionWithoutEffectIsPlain) {
  EXPECT_EQ(Recipe(FakeManifest(), kPlain), Recipe(FakeManifest(), With({.when = When::kAlways})));
}

TEST(RecipeTest, HoldsTheManifestsSettingsOfTokenVectors) {
  const auto recipe = [](const TokenVectorSettings& settings) {
    ModelManifest model = FakeManifest();
    model.token_vectors = settings;
    return Recipe(model, kPlain);
  };
  const std::set<std::string> recipes{recipe({}),
                                      recipe({.query_tokens = 8}),
                                      recipe({.expansion_tokens = 8}),
                                      recipe({.expansion_token = 50}),
                                      recipe({.expansion_attended = true}),
                                      recipe({.skipped_tokens = {21}}),
                                      Recipe(FakeManifest(), kPlain)};
  EXPECT_EQ(recipes.size(), 7u);
}

// Lo and the plain limit are 16.
TEST(RecipeTest, TheServersLimitCountsWhereTruncationCutsAtIt) {
  const auto limit = [](const PlanOptions& options) { return LimitThatCuts(FakeManifest(), options); };
  const PlanLimits limits{.max_sequence_tokens = 64};
  const Extension adaptive{.positions = Grouped{}}, given{.positions = Grouped{.factor = 4}};
  EXPECT_EQ(limit({.truncate = Truncate::kEnd, .extension = adaptive, .limits = limits}), 64);
  EXPECT_EQ(limit({.truncate = Truncate::kStart, .max_tokens = 65, .extension = adaptive, .limits = limits}), 64);
  EXPECT_EQ(limit({.truncate = Truncate::kEnd, .max_tokens = 64, .extension = adaptive, .limits = limits}),
            std::nullopt);
  EXPECT_EQ(limit({.truncate = Truncate::kNone, .extension = adaptive, .limits = limits}), std::nullopt);
  EXPECT_EQ(limit({.truncate = Truncate::kEnd, .extension = given, .limits = limits}), std::nullopt);
  EXPECT_EQ(limit({.truncate = Truncate::kEnd, .extension = given, .limits = {.max_sequence_tokens = 63}}), 63);
  EXPECT_EQ(limit({.truncate = Truncate::kEnd, .limits = limits}), std::nullopt);
  EXPECT_EQ(limit({.truncate = Truncate::kEnd, .limits = {.max_sequence_tokens = 15}}), 15);
  EXPECT_EQ(limit({.truncate = Truncate::kEnd, .extension = {.windows = Windows{}}, .limits = limits}), std::nullopt);
  RecipeOptions options = With(adaptive);
  options.max_sequence_tokens = 64;
  EXPECT_NE(Recipe(FakeManifest(), options), Recipe(FakeManifest(), With(adaptive)));
}

// A text of 16 tokens is plain on a server whose limit is at least that, and in windows on another.
TEST(RecipeTest, TheServersLimitCountsWhereWindowsDivideATextWithinLo) {
  const auto limit = [](const Extension& extension, int64_t limit, std::optional<int64_t> max_tokens = {}) {
    return LimitThatCuts(FakeManifest(),
                         {.max_tokens = max_tokens, .extension = extension, .limits = {.max_sequence_tokens = limit}});
  };
  const Extension windows{.windows = Windows{.tokens = 8}};
  EXPECT_EQ(limit(windows, 15), 15);
  EXPECT_EQ(limit(windows, 16), std::nullopt);
  EXPECT_EQ(limit(windows, 12, 13), 12);
  EXPECT_EQ(limit(windows, 12, 12), std::nullopt);
  EXPECT_EQ(limit({.when = When::kAlways, .windows = windows.windows}, 15), std::nullopt);
}

TEST(RecipeTest, ADefaultSpeltOutIsTheSameRecipe) {
  EXPECT_EQ(Recipe(FakeManifest(), With({.windows = Windows{}})),
            Recipe(FakeManifest(), With({.windows = Windows{.tokens = 16}})));
  EXPECT_EQ(Recipe(FakeRopeManifest(), With({.positions = ShiftedRotary{}})),  // Lo is 16.
            Recipe(FakeRopeManifest(), With({.positions = ShiftedRotary{.shift_from = 5, .local_window = 2}})));
  EXPECT_NE(Recipe(FakeRopeManifest(), With({.positions = Ntk{.factor = 2}})),
            Recipe(FakeRopeManifest(), With({.positions = Ntk{.base = 2}})));
  EXPECT_NE(Recipe(FakeManifest(), With({.positions = Grouped{}})),
            Recipe(FakeManifest(), With({.when = When::kAlways, .positions = Grouped{}})));
}

TEST(RecipeTest, EveryParameterOfWindowsChangesTheRecipe) {
  const auto recipe = [](const Windows& windows) { return Recipe(FakeManifest(), With({.windows = windows})); };
  const Windows weighted{.aggregation = Aggregation::kNormWeighted}, top{.aggregation = Aggregation::kTopNorm};
  EXPECT_EQ(recipe(weighted), recipe({.aggregation = Aggregation::kNormWeighted, .norm_temperature = 1}));
  EXPECT_EQ(recipe(top), recipe({.aggregation = Aggregation::kTopNorm, .top = 3}));
  const std::vector<std::string> recipes{recipe({}),
                                         recipe(weighted),
                                         recipe({.aggregation = Aggregation::kNormWeighted, .norm_temperature = 2}),
                                         recipe(top),
                                         recipe({.aggregation = Aggregation::kTopNorm, .top = 4}),
                                         recipe({.vectors = 4}),
                                         recipe({.vectors = 8}),
                                         recipe({.aggregation = Aggregation::kFirst, .vectors = 8})};
  EXPECT_EQ((std::set<std::string>(recipes.begin(), recipes.end()).size()), recipes.size());
}

TEST(RecipeTest, EveryParameterOfAMethodChangesTheRecipe) {
  using Positions = decltype(Extension::positions);
  const std::vector<std::pair<Positions, Positions>> pairs{
      {Grouped{.factor = 2}, Grouped{.factor = 3}},
      {Interpolation{.factor = 2}, Interpolation{.factor = 3}},
      {Ntk{.factor = 2}, Ntk{.factor = 3}},
      {NtkDynamic{.factor = 2}, NtkDynamic{.factor = 3}},
      {NtkByParts{.factor = 2}, NtkByParts{.factor = 3}},
      {Yarn{.factor = 2, .beta_fast = 16}, Yarn{.factor = 2, .beta_fast = 32}},
      {Yarn{.factor = 2, .beta_slow = 2}, Yarn{.factor = 2, .beta_slow = 1}},
      {SelfExtend{.group = 2, .neighbor_window = 4}, SelfExtend{.group = 3, .neighbor_window = 4}},
      {SelfExtend{.group = 2, .neighbor_window = 4}, SelfExtend{.group = 2, .neighbor_window = 8}},
      {ShiftedRotary{.shift_from = 8, .local_window = 4}, ShiftedRotary{.shift_from = 9, .local_window = 4}},
      {ShiftedRotary{.shift_from = 8, .local_window = 4}, ShiftedRotary{.shift_from = 8, .local_window = 3}},
  };
  for (const auto& [one, other] : pairs) {
    EXPECT_NE(Recipe(FakeRopeManifest(), With({.positions = one})),
              Recipe(FakeRopeManifest(), With({.positions = other})))
        << "method " << one.index();
  }
}

TEST(RecipeTest, EveryParameterOfACheckpointsScalingChangesTheRecipe) {
  const auto of = [](const RotaryScaling& scaling) {
    ModelManifest model = FakeRopeManifest();
    model.rotary_scaling = scaling;
    return Recipe(model, kPlain);
  };
  const RotaryScaling scaling{
      .kind = "longrope", .factors = {1, 2}, .long_factors = {3, 4}, .long_from = 8, .amplitude = 1.5};
  for (const auto change : std::initializer_list<void (*)(RotaryScaling&)>{
           [](RotaryScaling& s) { s.factors[1] = 2.5; }, [](RotaryScaling& s) { s.long_factors[0] = 2.5; },
           [](RotaryScaling& s) { s.long_from = 9; }, [](RotaryScaling& s) { s.amplitude = 1; }}) {
    RotaryScaling changed = scaling;
    change(changed);
    EXPECT_NE(of(scaling), of(changed));
  }
}

TEST(RecipeTest, ChangesOnlyWithSettingsThatShapeVectors) {
  const std::string plain = Recipe(FakeManifest(), kPlain);
  EXPECT_NE(plain, Recipe(FakeManifest(), {.dimensions = 2, .encoding = "FLOAT32"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.dimensions = 4, .encoding = "INT8"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.dimensions = 4, .normalize = false, .encoding = "FLOAT32"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.truncate = Truncate::kEnd, .dimensions = 4, .encoding = "FLOAT32"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), With({.windows = Windows{}})));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.max_tokens = 9, .dimensions = 4, .encoding = "FLOAT32"}));
  EXPECT_NE(Recipe(FakeManifest(), {.max_tokens = 8, .dimensions = 4, .encoding = "FLOAT32"}),
            Recipe(FakeManifest(), {.max_tokens = 9, .dimensions = 4, .encoding = "FLOAT32"}));
  EXPECT_NE(plain, Recipe(FakeManifest(), {.dimensions = 4, .token_pooling = 2, .encoding = "FLOAT32"}));
  ModelManifest other = FakeManifest();
  other.file_sha256["encoder.pt"] = "01";
  EXPECT_NE(plain, Recipe(other, kPlain));
  for (const auto change : std::initializer_list<void (*)(ModelManifest&)>{
           [](ModelManifest& m) { m.pooling = Pooling::kCls; }, [](ModelManifest& m) { m.trained_window = 8; },
           [](ModelManifest& m) { m.plain_limit = 32; }, [](ModelManifest& m) { m.position_stride = 2; },
           [](ModelManifest& m) { m.special_suffix = {3}; }, [](ModelManifest& m) { m.rotary_base = 500; },
           [](ModelManifest& m) { m.rotary_factor = 2; },
           [](ModelManifest& m) {
             m.rotary_scaling = RotaryScaling{.kind = "yarn", .factors = {1, 2}};
           }}) {
    ModelManifest changed = FakeManifest();
    change(changed);
    EXPECT_NE(plain, Recipe(changed, kPlain));
  }
  ModelManifest renamed = FakeManifest();
  renamed.name = "another name";
  EXPECT_EQ(plain, Recipe(renamed, kPlain));
}

}  // namespace
}  // namespace longembed
