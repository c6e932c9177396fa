// Tests the crate behind the C ABI on a vocabulary of 25 entries (tests/golden/tokenizer/wordpiece.json). Expected ids
// and offsets come from Python's tokenizers package. tests/integration compares the real vocabularies with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <thread>

#include "model/errors/errors.h"
#include "model/text/hf_tokenizer.h"

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TokenizerTest : public ::testing::Test {
 protected:
  const std::unique_ptr<Tokenizer> tokenizer_ =
      *LoadHuggingFaceTokenizer(std::string(LONGEMBED_GOLDEN_DIR) + "/tokenizer/wordpiece.json");
};

// The file requests truncation to 4 and padding to 8 tokens. Both must be ignored.
TEST_F(TokenizerTest, NeitherTruncatesNorPads) {
  const auto tokens = tokenizer_->Tokenize("The mills, unbelievable!");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_THAT(tokens->ids, ElementsAre(4, 5, 6, 18, 8, 9, 10, 17));
  EXPECT_THAT(tokens->ranges, ElementsAre(ByteRange{0, 3}, ByteRange{4, 8}, ByteRange{8, 9}, ByteRange{9, 10},
                                          ByteRange{11, 13}, ByteRange{13, 19}, ByteRange{19, 23}, ByteRange{23, 24}));
}

TEST_F(TokenizerTest, OffsetsAreBytesOfTheOriginalText) {
  const auto tokens = tokenizer_->Tokenize("Café 東京 🙂 b");
  EXPECT_THAT(tokens->ids, ElementsAre(11, 15, 16, 1, 21));
  EXPECT_THAT(tokens->ranges,
              ElementsAre(ByteRange{0, 5}, ByteRange{6, 9}, ByteRange{9, 12}, ByteRange{13, 17}, ByteRange{18, 19}));
}

TEST_F(TokenizerTest, SpecialTokensInTheTextAreRecognized) {
  EXPECT_THAT(tokenizer_->Tokenize("[SEP] a  bb.")->ids, ElementsAre(3, 20, 21, 22, 19));
}

TEST_F(TokenizerTest, AnEmptyOrBlankTextHasNoTokens) {
  EXPECT_THAT(tokenizer_->Tokenize("")->ids, IsEmpty());
  EXPECT_THAT(tokenizer_->Tokenize(" \n")->ids, IsEmpty());
}

// Each mark is a word and a token of its own, which takes ten times as much memory as a letter.
TEST_F(TokenizerTest, MarksTakeAsLittleMemoryAsLetters) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep freed memory";
#endif
  const auto peak_kib = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const std::string marks(4 << 20, '!');
  const auto before = peak_kib();
  ASSERT_TRUE(tokenizer_->Tokenize(marks, 1000).ok());
  EXPECT_LT(peak_kib() - before, 200 << 10);
}

// Brackets belong to special tokens, so a text is not cut before them.
TEST_F(TokenizerTest, ATextThatMayTakeTooMuchMemoryIsRefused) {
  for (const std::string part : {"[", "1\n", "\ufdfa"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += part;
    const absl::Status status = tokenizer_->Tokenize(text).status();
    EXPECT_EQ(ErrorReason(status), "TOKENIZER_FAILED") << part;
    EXPECT_THAT(std::string(status.message()), HasSubstr("without a place to cut")) << part;
  }
  EXPECT_TRUE(tokenizer_->Tokenize(std::string(2 << 20, 'x')).ok());
}

// The memory is asked for piece by piece, so that a long text that can be cut takes little more than a short one.
TEST_F(TokenizerTest, AsksForTheMemoryOfEachPiece) {
  const auto most = [this](const std::string& text) {
    int64_t most = 0;
    const HoldMemory hold = [&most](int64_t bytes) {
      most = std::max(most, bytes);
      return absl::OkStatus();
    };
    EXPECT_TRUE(tokenizer_->Tokenize(text, Tokenizer::kEverything, hold).ok());
    return most;
  };
  std::string words;
  while (words.size() < (1 << 20)) words += "unbelievable ";
  EXPECT_GT(most("the mills"), 200);
  EXPECT_LT(most("the mills"), 20'000);
  EXPECT_LT(most(words), 64 << 20);
  EXPECT_GT(most(std::string(1 << 20, 'x')), 200 << 20);  // A word cannot be cut.
}

TEST_F(TokenizerTest, EndsWhereMemoryIsRefused) {
  std::string text;
  while (text.size() < (1 << 20)) text += "unbelievable ";
  int asked = 0;
  const HoldMemory hold = [&asked](int64_t) {
    return ++asked < 3 ? absl::OkStatus() : absl::ResourceExhaustedError("no");
  };
  EXPECT_EQ(tokenizer_->Tokenize(text, Tokenizer::kEverything, hold).status(), absl::ResourceExhaustedError("no"));
  EXPECT_EQ(asked, 3);
  const HoldMemory throws = [](int64_t) -> absl::Status { throw std::bad_alloc(); };
  EXPECT_THROW((void)tokenizer_->Tokenize(text, Tokenizer::kEverything, throws), std::bad_alloc);
}

TEST_F(TokenizerTest, NamesTheFirstBadByte) {
  const absl::Status status = tokenizer_->Tokenize("ab\xc3(").status();
  EXPECT_EQ(ErrorReason(status), "INVALID_UTF8");
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 2"));
}

TEST_F(TokenizerTest, SpellsTokens) {
  EXPECT_EQ(*tokenizer_->TokenText(9), "##believ");
  EXPECT_EQ(tokenizer_->vocabulary_size(), 25);
  for (const int32_t id : {-1, 25, 1 << 30}) {
    EXPECT_EQ(tokenizer_->TokenText(id).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(TokenizerTest, TakesMegabytes) {
  std::string text;
  while (text.size() < 5'000'000) text += "the mills, unbelievable! ";
  EXPECT_EQ(tokenizer_->Tokenize(text)->ids.size(), 1'600'000u);
  // A single word of a million letters is one unknown token.
  EXPECT_EQ(tokenizer_->Tokenize(std::string(1'000'000, 'x'))->ids.size(), 1u);
}

TEST_F(TokenizerTest, ReadsNoMoreOfTheTextThanItNeeds) {
  std::string text;
  while (text.size() < 5'000'000) text += "the mills, unbelievable! ";
  const std::vector<int32_t> all = tokenizer_->Tokenize(text)->ids;
  const std::vector<int32_t> some = tokenizer_->Tokenize(text, 100'000)->ids;
  EXPECT_GT(some.size(), 100'000u);
  EXPECT_LT(some.size(), 200'000u);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
  EXPECT_EQ(tokenizer_->Tokenize(text, 1'600'000)->ids, all);
}

TEST_F(TokenizerTest, TextThatCannotBeCutHasALimit) {
  const absl::Status status = tokenizer_->Tokenize(std::string(9 << 20, 'x')).status();
  EXPECT_EQ(ErrorReason(status), "TOKENIZER_FAILED");
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("9437184 bytes"), HasSubstr("536870912")));
}

TEST_F(TokenizerTest, ServesManyThreads) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int j = 0; j < 200; ++j) ASSERT_THAT(tokenizer_->Tokenize("the river")->ids, ElementsAre(4, 7));
    });
  }
}

TEST(TokenizerFilesTest, SaysWhatIsWrongWithAFile) {
  const auto missing = LoadHuggingFaceTokenizer("/nonexistent/tokenizer.json");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent/tokenizer.json"));
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) / "bad_tokenizer.json";
  for (const char* content : {"", "{}", "[1]", "{\"version\": \"1.0\", \"model\": {\"type\": \"NoSuchModel\"}}"}) {
    std::ofstream(path) << content;
    const auto broken = LoadHuggingFaceTokenizer(path);
    EXPECT_EQ(broken.status().code(), absl::StatusCode::kFailedPrecondition) << content;
    EXPECT_THAT(std::string(broken.status().message()), HasSubstr("bad_tokenizer.json"));
  }
}

}  // namespace
}  // namespace longembed
