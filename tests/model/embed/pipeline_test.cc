#include "model/embed/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/errors/errors.h"
#include "model/vector/encoding.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;

Model FakeModel() { return Model{.manifest = FakeManifest(), .tokenizer = std::make_unique<FakeTokenizer>()}; }

TEST(PipelineTest, PreparesText) {
  const auto plan = PrepareInput(FakeModel(), std::string_view("a bb"), {.prompt = "query: "});
  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(plan->sequences[0].sequence.tokens, ElementsAre(1, 16, 11, 12, 2));
}

TEST(PipelineTest, PreparesTokenIds) {
  const std::vector<uint32_t> ids{50, 51};
  const auto content = PrepareInput(FakeModel(), TokenIds{.ids = ids}, {.prompt = "query: "});
  EXPECT_THAT(content->sequences[0].sequence.tokens, ElementsAre(1, 16, 50, 51, 2));
  const auto complete = PrepareInput(FakeModel(), TokenIds{.ids = ids, .complete = true}, {.prompt = "query: "});
  EXPECT_THAT(complete->sequences[0].sequence.tokens, ElementsAre(50, 51));
}

TEST(PipelineTest, RefusesIdsBeyondTheVocabulary) {
  for (const uint32_t bad : {100u, 0x80000000u, 0xffffffffu}) {
    const std::vector<uint32_t> ids{50, bad};
    const auto refused = PrepareInput(FakeModel(), TokenIds{.ids = ids}, {});
    EXPECT_EQ(ErrorField(refused.status()), "token_ids.ids[1]");
  }
  EXPECT_EQ(ErrorReason(PrepareInput(FakeModel(), TokenIds{}, {}).status()), "EMPTY_INPUT");
  EXPECT_EQ(ErrorReason(PrepareInput(FakeModel(), std::string_view("  "), {}).status()), "EMPTY_INPUT");
  const auto specials = PrepareInput(FakeModel(), std::string_view("  "), {.plan = {.allow_empty = true}});
  ASSERT_TRUE(specials.ok()) << specials.status();
  EXPECT_THAT(specials->sequences[0].sequence.tokens, ::testing::ElementsAre(1, 2));
}

// The prompt is tokenized with every input.
TEST(PipelineTest, CountsThePromptAmongTheBytesToTokenize) {
  const Model model = FakeModel();
  const std::vector<uint32_t> ids{50, 51};
  InputOptions options{.prompt = "query: "};
  for (const Truncate truncate : {Truncate::kNone, Truncate::kEnd}) {
    options.plan.truncate = truncate;
    EXPECT_EQ(BytesToTokenize(model, std::string_view("a bb"), options), 11);
    EXPECT_EQ(BytesToTokenize(model, TokenIds{.ids = ids}, options), 7);
    EXPECT_EQ(BytesToTokenize(model, TokenIds{.ids = ids, .complete = true}, options), 0);
  }
}

// Vectors of tokens depend neither on the model's pooling nor on whether the text has windows.
TEST(PipelineTest, CalibratesEveryTokenThatGetsAVector) {
  for (const Pooling pooling : {Pooling::kMean, Pooling::kCls, Pooling::kLast}) {
    Model model = FakeModel();
    model.manifest.pooling = pooling;
    for (const bool windows : {false, true}) {
      InputOptions options{
          .plan = {.extension = {.when = When::kAlways, .attention_calibration = AttentionCalibration{.basket = 2}}},
          .spans = SequenceTokens()};
      if (windows) options.plan.extension.windows = Windows{.tokens = 5};
      const auto plan = PrepareInput(model, std::string_view("a b c d"), options);
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_EQ(plan->sequences.size(), windows ? 2u : 1u);
      for (const PlannedSequence& planned : plan->sequences) {
        EXPECT_EQ(planned.sequence.calibration.basket, 2);
        EXPECT_EQ(planned.sequence.calibration.apart, -1);
        EXPECT_EQ(planned.sequence.calibration.rows, (Range{0, planned.tokens}));
      }
    }
  }
}

// Returns a plan with this many windows of 4 tokens each.
Plan PlanOf(int windows) {
  Plan plan;
  for (int32_t i = 0; i < windows; ++i) plan.sequences.push_back({.tokens = 4, .content = {2 * i, 2 * i + 2}});
  return plan;
}

std::vector<float> FinishOne(std::vector<std::vector<float>> rows, const VectorOptions& options) {
  return FinishVectors(PlanOf(static_cast<int>(rows.size())), rows, options)->front().values;
}

// Otherwise the answer would hold an infinite component.
TEST(PipelineTest, AComponentMustFitTheEncoding) {
  const auto finish = [](float component, const VectorOptions& options) {
    const std::vector<std::vector<float>> rows{{1, component}};
    return FinishVectors(PlanOf(1), rows, options).status();
  };
  const VectorOptions half{.dimensions = 2, .normalize = false, .beyond_encoding = kBeyondFloat16};
  for (const float component : {65520.0f, -65520.0f, 1e30f}) {
    EXPECT_EQ(ErrorReason(finish(component, half)), "COMPONENT_BEYOND_ENCODING") << component;
    EXPECT_EQ(ErrorField(finish(component, half)), "options.encoding") << component;
    EXPECT_TRUE(finish(component, {.dimensions = 2, .normalize = false}).ok()) << component;
    EXPECT_TRUE(finish(component, {.dimensions = 2, .beyond_encoding = kBeyondFloat16}).ok()) << component;
  }
  EXPECT_TRUE(finish(65519, half).ok());
  const std::vector<SparseVector> weights{{.indices = {3}, .values = {65520}}};
  EXPECT_EQ(ErrorReason(FinishSparse(PlanOf(1), weights, std::nullopt, kBeyondFloat16).status()),
            "COMPONENT_BEYOND_ENCODING");
  EXPECT_TRUE(FinishSparse(PlanOf(1), weights, std::nullopt).ok());
}

TEST(PipelineTest, DropsDimensionsBeforeItNormalizes) {
  EXPECT_THAT(FinishOne({{3, 4, 100}}, {.dimensions = 2}), ElementsAre(0.6f, 0.8f));
  EXPECT_THAT(FinishOne({{3, 4, 100}}, {.dimensions = 2, .normalize = false}), ElementsAre(3, 4));
  const std::vector<std::vector<float>> bad{{NAN, 1}};
  EXPECT_EQ(ErrorReason(FinishVectors(PlanOf(1), bad, {.dimensions = 2, .normalize = false}).status()),
            "UNUSABLE_VECTOR");
  EXPECT_EQ(ErrorReason(FinishVectors(PlanOf(1), bad, {.dimensions = 2}).status()), "UNUSABLE_VECTOR");
}

TEST(PipelineTest, AggregatesUnNormalizedWindows) {
  EXPECT_THAT(FinishOne({{6, 0}, {0, 8}}, {.dimensions = 2}), ElementsAre(0.6f, 0.8f));
  EXPECT_THAT(
      FinishOne({{6, 0}, {0, 8}}, {.dimensions = 2, .normalize = false, .windows = {.aggregation = Aggregation::kMax}}),
      ElementsAre(6, 8));
}

TEST(PipelineTest, NanInOneWindowIsFound) {
  for (const auto aggregation : {Aggregation::kMean, Aggregation::kTokenWeightedMean, Aggregation::kMax}) {
    for (const std::vector<std::vector<float>>& rows :
         {std::vector<std::vector<float>>{{1}, {NAN}}, std::vector<std::vector<float>>{{NAN}, {1}}}) {
      EXPECT_FALSE(FinishVectors(PlanOf(2), rows, {.dimensions = 1, .windows = {.aggregation = aggregation}}).ok());
    }
  }
}

TEST(PipelineTest, GivesOneVectorPerWindowOrSpan) {
  const std::vector<std::vector<float>> rows{{2}, {3}};
  const auto windows = FinishVectors(PlanOf(2), rows, {.dimensions = 1, .vector_per_window = true});
  ASSERT_EQ(windows->size(), 2u);
  EXPECT_EQ((*windows)[1].content, (Range{2, 4}));
  Plan spans = PlanOf(1);
  spans.spans = {{0, 1}, {1, 2}};
  EXPECT_EQ((*FinishVectors(spans, rows, {.dimensions = 1}))[1].content, (Range{1, 2}));
}

TEST(PipelineTest, GroupsNeighboringWindows) {
  const std::vector<std::vector<float>> rows{{1}, {2}, {6}, {4}, {8}};
  const auto grouped = [&rows](int64_t vectors, Windows windows = {}) {
    windows.vectors = vectors;
    const VectorOptions options{.dimensions = 1, .normalize = false, .windows = windows, .vector_per_window = true};
    const auto given = FinishVectors(PlanOf(5), rows, options);
    std::vector<Range> ranges;
    for (const OutputVector& vector : *given) ranges.push_back(vector.content);
    EXPECT_EQ(RangesOfVectors(PlanOf(5), options), ranges);
    EXPECT_EQ(CountVectors(PlanOf(5), options), std::ssize(ranges));
    return *given;
  };
  const auto two = grouped(2);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_THAT(two[0].values, ElementsAre(3));
  EXPECT_THAT(two[1].values, ElementsAre(6));
  EXPECT_EQ(two[0].content, (Range{0, 6}));
  EXPECT_EQ(two[1].content, (Range{6, 10}));
  EXPECT_THAT(grouped(2, {.aggregation = Aggregation::kTopNorm, .top = 1})[0].values, ElementsAre(6));
  EXPECT_THAT(grouped(1)[0].values, ElementsAre(4.2f));
  EXPECT_EQ(grouped(5).size(), 5u);
  EXPECT_EQ(grouped(6).size(), 5u);
}

TEST(PipelineTest, ASpanIsTheMeanOverItsTokensWhateverWindowsTheyAreIn) {
  Plan plan = PlanOf(2);
  plan.spans = {{0, 4}, {3, 4}, {5, 6}};
  plan.parts = {{0, 3}, {0, 1}, {1, 1}, {2, 1}};
  const std::vector<std::vector<float>> rows{{4, 0}, {0, 4}, {0.1f, 7}, {1, 2}};
  const auto vectors = FinishVectors(plan, rows, {.dimensions = 2, .normalize = false});
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  ASSERT_EQ(vectors->size(), 3u);
  EXPECT_THAT((*vectors)[0].values, ElementsAre(3, 1));
  EXPECT_THAT((*vectors)[1].values, ElementsAre(0.1f, 7));
  EXPECT_THAT((*vectors)[2].values, ElementsAre(1, 2));
  EXPECT_EQ((*vectors)[1].content, (Range{3, 4}));
}

// A running sum in float32 over 65,536 parts would be 6e-4 away.
TEST(PipelineTest, ASpanOverManyWindowsLosesNoPrecision) {
  constexpr int32_t kParts = 65536;
  Plan plan = PlanOf(1);
  plan.spans = {{0, 3 * kParts}};
  plan.parts.assign(kParts, {0, 3});
  const std::vector<std::vector<float>> rows(kParts, {0.1f, 0.3f, 1.7f});
  const auto vectors = FinishVectors(plan, rows, {.dimensions = 3, .normalize = false});
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(vectors->front().values[c] / rows[0][c], 1, 1e-6);
}

TEST(SpansTest, EveryFewTokens) {
  EXPECT_THAT(SpansOfEvery(3, 7), ElementsAre(Range{0, 3}, Range{3, 6}, Range{6, 7}));
  EXPECT_THAT(SpansOfEvery(9, 7), ElementsAre(Range{0, 7}));
}

TEST(SpansTest, CodePointsToTokens) {
  const std::vector<ByteRange> tokens{{0, 3}, {3, 5}, {5, 9}};  // The tokens are "é ", "b ", "cccc". é has two bytes.
  const std::string text = "\xc3\xa9 b cccc";
  EXPECT_THAT(*TokensOfCodePoints(text, std::vector<Range>{{0, 1}, {1, 3}, {0, 8}}, tokens),
              ElementsAre(Range{0, 1}, Range{0, 2}, Range{0, 3}));
  EXPECT_EQ(ErrorReason(TokensOfCodePoints(text, std::vector<Range>{{0, 9}}, tokens).status()), "SPAN_OUT_OF_RANGE");
  EXPECT_EQ(ErrorReason(TokensOfCodePoints(text, std::vector<Range>{{2, 2}}, tokens).status()), "SPAN_OUT_OF_RANGE");
}

TEST(SpansTest, SentencesWithoutTokensAreLeftOut) {
  const std::vector<ByteRange> tokens{{0, 3}, {13, 16}};
  EXPECT_THAT(*TokensOfSentences("One. \n \n . \nTwo.", tokens), ElementsAre(Range{0, 1}, Range{1, 2}));
}

// The vectors are those of two windows that share the tokens 2 and 3. The cluster's first vector is that of [SEP].
TEST(PipelineTest, AClusterExtendsFromItsFirstTokenToItsLast) {
  Plan plan;
  plan.spans = {{0, 0}, {0, 1}, {3, 4}, {4, 4}, {2, 3}, {5, 6}};
  const std::vector<std::vector<float>> rows{{9}, {50}, {51}, {1}, {1.25f}, {1.5f}};
  const auto vectors = FinishVectors(plan, rows, {.dimensions = 1, .normalize = false, .token_pooling = 3});
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  ASSERT_EQ(vectors->size(), 3u);
  EXPECT_EQ((*vectors)[0].content, (Range{0, 0}));
  EXPECT_EQ((*vectors)[1].content, (Range{0, 4}));
  EXPECT_EQ((*vectors)[2].values, std::vector<float>{1.25f});
  EXPECT_EQ((*vectors)[2].content, (Range{2, 6}));
}

}  // namespace
}  // namespace longembed
