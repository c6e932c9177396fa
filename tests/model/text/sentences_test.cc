#include "model/text/sentences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/errors/errors.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(SentencesTest, CoverTheText) {
  EXPECT_THAT(*SplitSentences("The river. The mill!"), ElementsAre(ByteRange{0, 11}, ByteRange{11, 20}));
  EXPECT_THAT(*SplitSentences("caf\u00e9"), ElementsAre(ByteRange{0, 5}));
}

// Found by tests/fuzz: the crate panicked on an empty text.
TEST(SentencesTest, AnEmptyTextHasNone) {
  const auto sentences = SplitSentences("");
  ASSERT_TRUE(sentences.ok()) << sentences.status();
  EXPECT_THAT(*sentences, IsEmpty());
}

TEST(SentencesTest, RefuseWhatIsNotUtf8) { EXPECT_EQ(ErrorReason(SplitSentences("a\xff").status()), "INVALID_UTF8"); }

}  // namespace
}  // namespace longembed
