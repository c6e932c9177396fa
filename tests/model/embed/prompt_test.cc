#include "model/text/prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/errors/errors.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PromptTest, Resolves) {
  const ModelManifest model = FakeManifest();
  EXPECT_EQ(*ResolvePrompt(model, {}), "");
  EXPECT_EQ(*ResolvePrompt(model, PromptName{"query"}), "query: ");
  EXPECT_EQ(*ResolvePrompt(model, InputType::kDocument), "passage: ");
  EXPECT_EQ(*ResolvePrompt(model, LiteralPrompt{"x "}), "x ");
}

TEST(PromptTest, ARequestThatNamesNoPromptGetsTheDefault) {
  ModelManifest model = FakeManifest();
  model.default_prompt_name = "query";
  EXPECT_EQ(*ResolvePrompt(model, {}), "query: ");
  EXPECT_EQ(*ResolvePrompt(model, InputType::kDocument), "passage: ");
  EXPECT_EQ(*ResolvePrompt(model, PromptName{"passage"}), "passage: ");
  EXPECT_EQ(*ResolvePrompt(model, LiteralPrompt{""}), "");
}

TEST(PromptTest, UnknownNamesListTheKnownOnes) {
  ModelManifest model = FakeManifest();
  const absl::Status unknown = ResolvePrompt(model, PromptName{"passages"}).status();
  EXPECT_EQ(ErrorField(unknown), "options.prompt_name");
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("passage, query"));
  model.input_types.clear();
  EXPECT_EQ(ErrorField(ResolvePrompt(model, InputType::kQuery).status()), "options.input_type");
}

TEST(PromptTest, ContentBeginsAtTheFirstTokenThatEndsBeyondThePrompt) {
  // "query: " + "ab cd" are the tokens "query:" [0,6), " ab" [6,9), " cd" [9,12): the second one spans the seam at 7.
  const auto tokens = TokenizeWithPrompt(FakeTokenizer(), "query: ", "ab cd", 100);
  ASSERT_TRUE(tokens.ok());
  EXPECT_THAT(tokens->prompt, ElementsAre(16));
  EXPECT_THAT(tokens->content, ElementsAre(12, 12));
  EXPECT_EQ(tokens->content_ranges[0].begin, 0u);
  EXPECT_EQ(tokens->content_ranges[0].end, 2u);
  EXPECT_EQ(tokens->content_ranges[1].begin, 2u);
  EXPECT_EQ(tokens->content_ranges[1].end, 5u);
}

TEST(PromptTest, BadBytesAreCountedWithinTheText) {
  const absl::Status status = TokenizeWithPrompt(FakeTokenizer(), "query: ", "ab\xff", 100).status();
  EXPECT_EQ(ErrorReason(status), "INVALID_UTF8");
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 2"));
}

TEST(PromptTest, ATextWithoutTokensIsEmpty) {
  EXPECT_EQ(ErrorReason(TokenizeWithPrompt(FakeTokenizer(), "query: ", "", 100).status()), "EMPTY_INPUT");
  EXPECT_THAT(TokenizeWithPrompt(FakeTokenizer(), "query: ", "   ", 100)->content, ::testing::IsEmpty());
  EXPECT_THAT(TokenizeWithPrompt(FakeTokenizer(), "", " ", 100)->content, ::testing::IsEmpty());
}

}  // namespace
}  // namespace longembed
