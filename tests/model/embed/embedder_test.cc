#include "model/embed/embedder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/errors/errors.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

class EmbedderTest : public ::testing::Test {
 protected:
  Model model_{.manifest = FakeManifest(), .tokenizer = std::make_unique<FakeTokenizer>()};
  FakeEncoder encoder_;
  Embedder embedder_{model_, encoder_};
};

TEST_F(EmbedderTest, AnswersInTheOrderOfTheTexts) {
  const std::vector<std::string_view> texts{"a b c d", "bb", "ccc ccc"};
  const auto vectors = embedder_.Embed(texts, {.normalize = false, .max_batch_tokens = 7});
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  // {sum of ids with the specials 1 and 2, tokens, tokens, 1}
  EXPECT_THAT(*vectors, ElementsAre(ElementsAre(47, 6, 6, 1), ElementsAre(15, 3, 3, 1), ElementsAre(29, 4, 4, 1)));
  EXPECT_THAT(encoder_.batches(), SizeIs(2));  // 3 + 4 tokens, then 6.
}

TEST_F(EmbedderTest, NamesTheInputAtFault) {
  const std::vector<std::string_view> texts{"a", ""};
  EXPECT_EQ(ErrorField(embedder_.Embed(texts, {}).status()), "inputs[1]");
}

}  // namespace
}  // namespace longembed
