#include "model/plan/cost.h"

#include <gtest/gtest.h>

#include <vector>

#include "model/plan/planner.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

// Plans `content` tokens, which two special tokens surround.
Plan PlainPlan(const ModelManifest& model, int content) {
  RotaryTableCache tables;
  const std::vector<int32_t> ids(content, 20);
  return *longembed::PlanInput(model, {.content = ids}, {}, tables);
}

TEST(CostTest, CountsLinearLayersAndAttention) {
  const Cost cost = EstimateCost(FakeManifest(), PlainPlan(FakeManifest(), 8));
  EXPECT_EQ(cost.tokens, 10);
  EXPECT_EQ(cost.attention_pairs, 100);
  // Per layer and token there are 4 projections of 4 x 4 and two of 4 x 16, with two operations per weight. Attention
  // has 2 products of 2 operations, with a width of 4.
  EXPECT_DOUBLE_EQ(cost.gflop, 2 * (10 * 2 * (4 * 16 + 2 * 64) + 100 * 16) * 1e-9);
}

TEST(CostTest, CountsGroupedQueriesAndGates) {
  ModelManifest model = FakeRopeManifest();
  model.key_value_heads = 1;
  model.gated = true;
  const Cost cost = EstimateCost(model, PlainPlan(model, 8));
  // Query and output are 4 x 16 each, key and value are 4 x 8 each, and three matrices are 4 x 16.
  EXPECT_DOUBLE_EQ(cost.gflop, 2 * (10 * 2 * (2 * 64 + 2 * 32 + 3 * 64) + 100 * 4 * 16) * 1e-9);
}

TEST(CostTest, LocalLayersCostTheirWindow) {
  ModelManifest model = FakeManifest();
  model.local_layers = 1;
  model.local_window = 2;
  const Plan plan = PlainPlan(model, 8);
  // Of 10 tokens, the middle six see five tokens each. Those at each end see three and four.
  const double linear = 10 * 2 * (4 * 16 + 2 * 64), pair = 16;
  EXPECT_DOUBLE_EQ(EstimateCost(model, plan).gflop, (2 * linear + (100 + 44) * pair) * 1e-9);
  EXPECT_DOUBLE_EQ(AttentionShare(model), pair / (2 * linear / 10 + 5 * pair));
  model.local_window = 50;
  EXPECT_DOUBLE_EQ(EstimateCost(model, plan).gflop, EstimateCost(FakeManifest(), plan).gflop);
}

TEST(CostTest, ACausalModelRunsHalfOfThePairs) {
  const Plan plan = PlainPlan(FakeManifest(), 10);
  ModelManifest causal = FakeManifest();
  causal.causal = true;
  const double linear = LinearOperations(causal) * static_cast<double>(plan.run_tokens());
  const Cost all = EstimateCost(FakeManifest(), plan), half = EstimateCost(causal, plan);
  EXPECT_DOUBLE_EQ(half.gflop * 1e9 - linear, (all.gflop * 1e9 - linear) / 2);
  EXPECT_EQ(half.attention_pairs, all.attention_pairs);
  EXPECT_DOUBLE_EQ(AttentionShare(causal), AttentionShare(FakeManifest()) / 2);
}

}  // namespace
}  // namespace longembed
