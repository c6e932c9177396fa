#include "model/text/prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

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
  // "query: " + "ab cd" has the tokens "query:" [0,6), " ab" [6,9), " cd" [9,12). The second one crosses the end of the
  // prompt at 7.
  const auto tokens = TokenizeWithPrompt(FakeTokenizer(), "query: ", "ab cd", 100);
  ASSERT_TRUE(tokens.ok());
  EXPECT_THAT(tokens->prompt, ElementsAre(16));
  EXPECT_THAT(tokens->content, ElementsAre(12, 12));
  EXPECT_EQ(tokens->content_ranges[0].begin, 0u);
  EXPECT_EQ(tokens->content_ranges[0].end, 2u);
  EXPECT_EQ(tokens->content_ranges[1].begin, 2u);
  EXPECT_EQ(tokens->content_ranges[1].end, 5u);
}

TEST(PromptTest, TheOffsetOfABadByteExcludesThePrompt) {
  const absl::Status status = TokenizeWithPrompt(FakeTokenizer(), "query: ", "ab\xff", 100).status();
  EXPECT_EQ(ErrorReason(status), "INVALID_UTF8");
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 2"));
}

TEST(PromptTest, ATextWithoutTokensIsEmpty) {
  EXPECT_EQ(ErrorReason(TokenizeWithPrompt(FakeTokenizer(), "query: ", "", 100).status()), "EMPTY_INPUT");
  EXPECT_THAT(TokenizeWithPrompt(FakeTokenizer(), "query: ", "   ", 100)->content, ::testing::IsEmpty());
  EXPECT_THAT(TokenizeWithPrompt(FakeTokenizer(), "", " ", 100)->content, ::testing::IsEmpty());
}

// Returns words of 1 to 40 letters, separated by 1 to 3 blanks, with a word of 200,000 letters now and then.
std::string RandomText(std::mt19937& random, size_t bytes) {
  std::string text;
  while (text.size() < bytes) {
    text.append(random() % 20'000 == 0 ? 200'000 : 1 + random() % 40, 'a').append(1 + random() % 3, ' ');
  }
  return text;
}

// Counts the bytes that are tokenized.
class CountingTokenizer final : public Tokenizer {
 public:
  absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough, const HoldMemory& hold) const override {
    bytes += text.size();
    return fake_.Tokenize(text, enough, hold);
  }
  size_t CutAfter(std::string_view text, size_t at) const override { return fake_.CutAfter(text, at); }
  size_t CutBefore(std::string_view text, size_t at) const override { return fake_.CutBefore(text, at); }
  absl::StatusOr<std::string> TokenText(int32_t id) const override { return fake_.TokenText(id); }
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip) const override {
    return fake_.Decode(ids, skip);
  }
  int32_t vocabulary_size() const override { return fake_.vocabulary_size(); }

  mutable size_t bytes = 0;

 private:
  const FakeTokenizer fake_;
};

TEST(TokenizePartTest, HasTheTokensOfTheWholeText) {
  std::mt19937 random(1);
  int parts = 0;
  for (int round = 0; round < 60; ++round) {
    const std::string text = RandomText(random, 1 + random() % 700'000);
    const std::string prompt = random() % 2 == 0 ? "" : "query: ";
    const PromptedTokens whole = *TokenizeWithPrompt(FakeTokenizer(), prompt, text, 1 << 30);
    NeededTokens needed{.count = static_cast<int64_t>(random() % 20'000),
                        .from_end = random() % 2 == 0,
                        .count_rest = random() % 2 == 0};
    const auto part = TokenizePart(FakeTokenizer(), prompt, text, needed);
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_EQ(part->prompt, whole.prompt);
    const auto here = std::ssize(part->content), all = std::ssize(whole.content);
    ASSERT_EQ(part->content_ranges.size(), part->content.size());
    EXPECT_GE(here, std::min(all, needed.count));
    const auto first = needed.from_end ? all - here : 0;
    EXPECT_TRUE(std::equal(part->content.begin(), part->content.end(), whole.content.begin() + first));
    EXPECT_TRUE(
        std::equal(part->content_ranges.begin(), part->content_ranges.end(), whole.content_ranges.begin() + first));
    EXPECT_EQ(needed.from_end ? part->after : part->before, 0);
    const int64_t rest = part->before + part->after;
    if (here < all) ++parts;
    if (part->estimated) {
      EXPECT_FALSE(needed.count_rest);
      EXPECT_GT(rest, 0);
    } else {
      EXPECT_EQ(rest, all - here);
    }
  }
  EXPECT_GT(parts, 20);
}

TEST(TokenizePartTest, DoesNotTokenizeTheRest) {
  std::mt19937 random(2);
  std::string text;
  while (text.size() < (4u << 20)) text.append(1 + random() % 9, 'a').append(" ");
  const auto all = std::ssize(TokenizeWithPrompt(FakeTokenizer(), "", text, 1 << 30)->content);
  for (const bool from_end : {false, true}) {
    const NeededTokens needed{.count = 500, .from_end = from_end};
    const CountingTokenizer tokenizer;
    const PromptedTokens part = *TokenizePart(tokenizer, "query: ", text, needed);
    EXPECT_LT(tokenizer.bytes, 140'000u);
    EXPECT_LE(static_cast<int64_t>(tokenizer.bytes), BytesOfPart(tokenizer, std::ssize(text), needed));
    EXPECT_TRUE(part.estimated);
    const auto told = static_cast<double>(std::ssize(part.content) + part.before + part.after);
    EXPECT_NEAR(told / static_cast<double>(all), 1, 0.02);
  }
}

// A long word, such as an image in base64, cannot be cut. It is not tokenized if there are enough tokens next to it.
TEST(TokenizePartTest, DoesNotTokenizeALongWordOfTheRest) {
  std::string words;
  while (words.size() < 20'000) words += "aaa bb ";
  const std::string text = words + std::string(4 << 20, 'a') + " " + words;
  for (const bool from_end : {false, true}) {
    const CountingTokenizer tokenizer;
    const auto part = TokenizePart(tokenizer, "query: ", text, {.count = 500, .from_end = from_end});
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_LT(tokenizer.bytes, 140'000u);
    EXPECT_GT(part->content.size(), 500u);
    EXPECT_TRUE(part->estimated);
  }
}

TEST(TokenizePartTest, AShortRestIsCounted) {
  std::string text;
  while (text.size() < 120'000) text += "aaa bb  ";
  for (const bool from_end : {false, true}) {
    EXPECT_FALSE(TokenizePart(FakeTokenizer(), "", text, {.count = 500, .from_end = from_end})->estimated);
  }
}

TEST(TokenizePartTest, ABadByteOfTheRestIsAnErrorToo) {
  const std::string text = std::string(9 << 16, 'a').replace(70'000, 1, " ").replace(500'000, 1, "\xff");
  const absl::Status status = TokenizePart(FakeTokenizer(), "", text, {.count = 1}).status();
  EXPECT_EQ(ErrorReason(status), "INVALID_UTF8");
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 500000"));
}

}  // namespace
}  // namespace longembed
