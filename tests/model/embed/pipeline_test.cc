#include "model/embed/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/errors/errors.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;

Model FakeModel() { return {.manifest = FakeManifest(), .tokenizer = std::make_unique<FakeTokenizer>()}; }

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
}

TEST(PipelineTest, CutsBeforeItNormalizes) {
  const std::vector<float> row{3, 4, 100};
  EXPECT_THAT(*FinishVector(row, {.dimensions = 2}), ElementsAre(0.6f, 0.8f));
  EXPECT_THAT(*FinishVector(row, {.dimensions = 2, .normalize = false}), ElementsAre(3, 4));
  const std::vector<float> bad{NAN, 1};
  EXPECT_EQ(ErrorReason(FinishVector(bad, {.dimensions = 2, .normalize = false}).status()), "UNUSABLE_VECTOR");
  EXPECT_EQ(ErrorReason(FinishVector(bad, {.dimensions = 2}).status()), "UNUSABLE_VECTOR");
}

}  // namespace
}  // namespace longembed
