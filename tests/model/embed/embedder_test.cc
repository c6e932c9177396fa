#include "model/embed/embedder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "model/embed/precision_check.h"
#include "model/errors/errors.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

std::vector<Input> Texts(std::initializer_list<std::string_view> texts) { return {texts.begin(), texts.end()}; }

class EmbedderTest : public ::testing::Test {
 protected:
  Model model_{.manifest = FakeManifest(), .tokenizer = std::make_unique<FakeTokenizer>()};
  FakeEncoder encoder_;
  Team team_;
  Embedder embedder_{model_, encoder_, team_};
};

TEST_F(EmbedderTest, AnswersInTheOrderOfTheTexts) {
  const auto vectors =
      embedder_.Embed(Texts({"a b c d", "bb", "ccc ccc"}), {.normalize = false, .max_batch_tokens = 7});
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  // The vector is {sum of ids including the special tokens 1 and 2, tokens, tokens, 1}.
  EXPECT_THAT((*vectors)[0].front().values, ElementsAre(47, 6, 6, 1));
  EXPECT_THAT((*vectors)[1].front().values, ElementsAre(15, 3, 3, 1));
  EXPECT_THAT((*vectors)[2].front().values, ElementsAre(29, 4, 4, 1));
  EXPECT_THAT(encoder_.batches(), SizeIs(2));  // One batch of 3 + 4 tokens, then one of 6.
}

TEST_F(EmbedderTest, NamesTheInputAtFault) {
  EXPECT_EQ(ErrorField(embedder_.Embed(Texts({"a", ""}), {}).status()), "inputs[1]");
}

TEST_F(EmbedderTest, WindowsComeBackAsOneVectorOrSeveral) {
  EmbedderOptions options{.plan = {.extension = {.windows = Windows{.tokens = 6}}}, .normalize = false};
  const std::string text =
      "a a a a b b b b c c c c dddd dddd dddd dddd";  // 16 tokens: 4 windows of 4, each with the special tokens.
  const std::vector<Input> inputs = Texts({"bb", text});
  const auto aggregated = embedder_.Embed(inputs, options);
  ASSERT_TRUE(aggregated.ok()) << aggregated.status();
  EXPECT_THAT((*aggregated)[1], SizeIs(1));
  options.vector_per_window = true;
  const auto apart = embedder_.Embed(inputs, options);
  EXPECT_THAT((*apart)[0], SizeIs(1));
  ASSERT_THAT((*apart)[1], SizeIs(4));
  options.vector_per_window = false;
  const auto first_component = [&](Aggregation aggregation) {
    options.plan.extension.windows->aggregation = aggregation;
    return (*embedder_.Embed(inputs, options))[1].front().values[0];
  };
  std::vector<float> sums;
  for (const OutputVector& window : (*apart)[1]) sums.push_back(window.values[0]);
  EXPECT_NE(sums[0], sums[3]);
  EXPECT_EQ(first_component(Aggregation::kMean), (sums[0] + sums[1] + sums[2] + sums[3]) / 4);
  EXPECT_EQ(first_component(Aggregation::kMax), *std::ranges::max_element(sums));
  EXPECT_EQ(first_component(Aggregation::kFirst), sums[0]);
}

// Each of these once ended the process, never ended, or was ignored.
TEST_F(EmbedderTest, OptionsOutOfRangeOrThatDoNotGoTogetherAreErrors) {
  model_.manifest.sparse_head = SparseHeadKind::kSpladeMax;
  model_.manifest.token_vectors = TokenVectorSettings{.query_tokens = 8};
  const PlanOptions tokens{.token_vectors = TokenVectors::kDocument};
  const Extension groups{.windows = Windows{.vectors = 2}}, windows{.windows = Windows{}};
  const std::vector<std::pair<EmbedderOptions, const char*>> cases = {
      {{.spans = EveryTokens{0}}, "options.spans.every_tokens.tokens"},
      {{.spans = EveryTokens{-1}}, "options.spans.every_tokens.tokens"},
      {{.plan = tokens, .spans = EveryTokens{1}}, "options.spans"},
      {{.spans = SentenceSpans{}, .sparse = true}, "options.spans"},
      {{.plan = tokens, .sparse = true}, "options.sparse"},
      {{.sparse = true, .max_terms = -1}, "options.max_terms"},
      {{.sparse = true, .max_terms = 0}, "options.max_terms"},
      {{.sparse = true, .max_terms = model_.manifest.vocabulary_size + 1}, "options.max_terms"},
      {{.max_terms = 3}, "options.max_terms"},
      {{.plan = tokens, .token_pooling = 0}, "options.token_pooling"},
      {{.plan = tokens, .token_pooling = std::numeric_limits<int64_t>::max()}, "options.token_pooling"},
      {{.token_pooling = 2}, "options.token_pooling"},
      {{.vector_per_window = true}, "options.vector_per_window"},
      {{.plan = {.extension = windows}, .spans = EveryTokens{1}, .vector_per_window = true},
       "options.vector_per_window"},
      {{.plan = {.extension = windows}, .vector_per_window = true, .sparse = true}, "options.vector_per_window"},
      {{.plan = {.extension = windows, .token_vectors = TokenVectors::kDocument}, .vector_per_window = true},
       "options.vector_per_window"},
      {{.dimensions = {.dimensions = 2, .force = true}, .sparse = true}, "options.dimensions"},
      {{.plan = {.sparse = true}}, "options.plan.sparse"},
      {{.plan = {.extension = groups}}, "options.plan.extension.windows.vectors"}};
  for (size_t i = 0; i < cases.size(); ++i) {
    const absl::Status status = embedder_.Embed(Texts({"a b"}), cases[i].first).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << i << ": " << status;
    EXPECT_EQ(ErrorField(status), cases[i].second) << i;
  }
  std::vector<Input> ranges = Texts({"a b", "a b"});
  ranges[1].ranges = {{0, 1}};
  EXPECT_EQ(ErrorField(embedder_.Embed(ranges, {}).status()), "inputs[1].ranges");
}

TEST(PrecisionCheckTest, TextsWithoutTermsAreEqual) {
  const SampleVectors some{{1, 0}, {0, 0}}, none{{0, 0}, {0, 0}};
  EXPECT_EQ(ComparePrecision(some, some).lowest_cosine, 1);
  EXPECT_EQ(ComparePrecision(some, some).mean_cosine, 1);
  EXPECT_EQ(ComparePrecision(some, none).lowest_cosine, 0);
}

}  // namespace
}  // namespace longembed
