#include "model/text/sentences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <string>
#include <vector>

#include "model/errors/errors.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<ByteRange> Sentences(std::string_view text) {
  std::vector<ByteRange> sentences;
  const absl::Status status = ForEachSentence(text, [&](ByteRange sentence) { sentences.push_back(sentence); });
  EXPECT_TRUE(status.ok()) << status;
  return sentences;
}

TEST(SentencesTest, CoverTheText) {
  EXPECT_THAT(Sentences("The river. The mill!"), ElementsAre(ByteRange{0, 11}, ByteRange{11, 20}));
  EXPECT_THAT(Sentences("caf\u00e9"), ElementsAre(ByteRange{0, 5}));
}

// They come a thousand at a time.
TEST(SentencesTest, AnyNumberOfThemIsInOrder) {
  for (const uint32_t count : {1023u, 1024u, 1025u, 3000u}) {
    const std::vector<ByteRange> sentences = Sentences(std::string(count, '\n'));
    ASSERT_EQ(sentences.size(), count);
    for (uint32_t i = 0; i < count; ++i) EXPECT_EQ(sentences[i], (ByteRange{i, i + 1}));
  }
}

TEST(SentencesTest, ACallerMayRunOutOfMemory) {
  int calls = 0;
  const auto fail = [&calls](ByteRange) {
    ++calls;
    throw std::bad_alloc();
  };
  EXPECT_THROW(ForEachSentence(std::string(5000, '\n'), fail).IgnoreError(), std::bad_alloc);
  EXPECT_EQ(calls, 1);
}

// Found by tests/fuzz: the crate panicked on an empty text.
TEST(SentencesTest, AnEmptyTextHasNone) { EXPECT_THAT(Sentences(""), IsEmpty()); }

TEST(SentencesTest, RefuseInvalidUtf8) {
  const absl::Status status = ForEachSentence("a\xff", [](ByteRange) { ADD_FAILURE(); });
  EXPECT_EQ(ErrorReason(status), "INVALID_UTF8");
}

}  // namespace
}  // namespace longembed
