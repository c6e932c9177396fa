#include "model/embed/embedder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

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

}  // namespace
}  // namespace longembed
