#include "model/plan/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "model/errors/errors.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int32_t> Ids(int count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 20);
  return ids;
}

TEST(PlannerTest, PutsSpecialsAndPromptAroundTheContent) {
  const std::vector<int32_t> prompt{10, 11}, content{20, 21, 22};
  const auto plan = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->sequences.size(), 1u);
  const Sequence& sequence = plan->sequences[0].sequence;
  EXPECT_THAT(sequence.tokens, ElementsAre(1, 10, 11, 20, 21, 22, 2));
  EXPECT_THAT(sequence.positions, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_THAT(sequence.spans, ElementsAre(Range{0, 7}));
  EXPECT_EQ(sequence.query_scale, 1.0f);
  EXPECT_EQ(sequence.neighbour_window, 0);
  EXPECT_EQ(plan->sequences[0].content, (Range{0, 3}));
  EXPECT_EQ(plan->tokens, 7);
  EXPECT_EQ(plan->truncated_tokens, 0);
  EXPECT_EQ(plan->capacity, 16);
}

TEST(PlannerTest, PoolsWhatTheModelPools) {
  const std::vector<int32_t> content{20, 21};
  ModelManifest model = FakeManifest();
  model.pooling = Pooling::kCls;
  EXPECT_THAT(PlanInput(model, {.content = content}, {})->sequences[0].sequence.spans, ElementsAre(Range{0, 1}));
  model.pooling = Pooling::kLast;
  EXPECT_THAT(PlanInput(model, {.content = content}, {})->sequences[0].sequence.spans, ElementsAre(Range{3, 4}));
}

TEST(PlannerTest, TakesExactlyTheCapacity) {
  const std::vector<int32_t> fits = Ids(14), over = Ids(15);
  EXPECT_EQ(PlanInput(FakeManifest(), {.content = fits}, {})->tokens, 16);
  const auto refused = PlanInput(FakeManifest(), {.content = over}, {});
  EXPECT_EQ(ErrorReason(refused.status()), "INPUT_TOO_LONG");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("17"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("16"));
}

TEST(PlannerTest, TruncatesAtTheEndOrTheStart) {
  const std::vector<int32_t> prompt{10}, content = Ids(100);
  const auto end = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {.truncate = Truncate::kEnd});
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->sequences[0].content, (Range{0, 13}));
  EXPECT_EQ(end->sequences[0].sequence.tokens[2], 20);
  EXPECT_EQ(end->sequences[0].sequence.tokens.back(), 2);
  EXPECT_EQ(end->tokens, 16);
  EXPECT_EQ(end->truncated_tokens, 87);
  const auto start = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {.truncate = Truncate::kStart});
  ASSERT_TRUE(start.ok());
  EXPECT_EQ(start->sequences[0].content, (Range{87, 100}));
  EXPECT_EQ(start->sequences[0].sequence.tokens[2], 107);
}

TEST(PlannerTest, CompleteIdsStayAsTheyAre) {
  const std::vector<int32_t> content = Ids(16), over = Ids(17);
  const auto plan = PlanInput(FakeManifest(), {.content = content, .complete = true}, {});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->sequences[0].sequence.tokens, content);
  const auto refused = PlanInput(FakeManifest(), {.content = over, .complete = true}, {.truncate = Truncate::kEnd});
  EXPECT_EQ(ErrorReason(refused.status()), "INPUT_TOO_LONG");
  EXPECT_EQ(ErrorField(refused.status()), "token_ids");
}

TEST(PlannerTest, RefusesEmptyContentAndPromptsWithoutRoom) {
  EXPECT_EQ(ErrorReason(PlanInput(FakeManifest(), {}, {}).status()), "EMPTY_INPUT");
  const std::vector<int32_t> prompt = Ids(14), content{20};
  const auto refused = PlanInput(FakeManifest(), {.prompt = prompt, .content = content}, {.truncate = Truncate::kEnd});
  EXPECT_EQ(ErrorReason(refused.status()), "PROMPT_TOO_LONG");
}

TEST(PlannerTest, CostCountsLinearLayersAndAttention) {
  const std::vector<int32_t> content = Ids(8);
  const auto plan = PlanInput(FakeManifest(), {.content = content}, {});
  const Cost cost = EstimateCost(FakeManifest(), *plan);
  EXPECT_EQ(cost.tokens, 10);
  EXPECT_EQ(cost.attention_pairs, 100);
  // Per layer and token: 4 projections of 4 x 4 and two of 4 x 16, two operations a weight; attention: 2 products of 2
  // operations, 4 wide.
  EXPECT_DOUBLE_EQ(cost.gigaflops, 2 * (10 * 2 * (4 * 16 + 2 * 64) + 100 * 16) * 1e-9);
}

}  // namespace
}  // namespace longembed
