#include "model/errors/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longembed {
namespace {

using ::testing::HasSubstr;

TEST(ErrorsTest, CarriesFieldReasonAndMessage) {
  const absl::Status status = InvalidUtf8("texts[2]", 7);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorField(status), "texts[2]");
  EXPECT_EQ(ErrorReason(status), "INVALID_UTF8");
  EXPECT_EQ(status.message(), "texts[2]: is not valid UTF-8, first at byte 7");
}

TEST(ErrorsTest, MovesBelowAParent) {
  const absl::Status inner = AtField(TokenIdOutOfRange(3, 70000, 100), "inputs[5]");
  EXPECT_EQ(ErrorField(inner), "inputs[5].token_ids.ids[3]");
  EXPECT_EQ(inner.message(), "inputs[5].token_ids.ids[3]: is 70000; the vocabulary has ids 0 to 99");
  const absl::Status whole = AtField(InputTooLong(600, 512), "inputs[1]");
  EXPECT_EQ(ErrorField(whole), "inputs[1]");
  EXPECT_EQ(ErrorReason(whole), "INPUT_TOO_LONG");
  EXPECT_THAT(std::string(whole.message()), HasSubstr("inputs[1]: has 600 tokens"));
  EXPECT_THAT(std::string(whole.message()), HasSubstr("512"));
}

// Found by tests/simulation: a refusal for lack of memory lost its retry delay when a field was added to it.
TEST(ErrorsTest, KeepsPayloadsOfOthers) {
  absl::Status status = InputTooLong(600, 512);
  status.SetPayload("retry", absl::Cord("1s"));
  EXPECT_EQ(AtField(status, "inputs[0]").GetPayload("retry"), absl::Cord("1s"));
  EXPECT_EQ(RenameField(AtField(status, "inputs[0]"), "inputs[0]", "input").GetPayload("retry"), absl::Cord("1s"));
}

// Found by tests/fuzz: a name of several megabytes was repeated in the trailers of the answer.
TEST(ErrorsTest, LongNamesAreCutBetweenTwoCharacters) {
  std::string name;
  while (name.size() < 100'000) name += "\u00e9";
  for (const std::string& prefix : {std::string(), std::string("x")}) {
    const std::string message(UnknownPrompt("options.prompt_name", prefix + name, {}).message());
    EXPECT_LT(message.size(), 900u);
    EXPECT_THAT(message, ::testing::EndsWith("\u00e9..."));
    EXPECT_THAT(message, HasSubstr("options.prompt_name: is \"" + prefix + "\u00e9"));
  }
  const std::string once(UnknownPrompt("name", name, {}).message());
  EXPECT_EQ(AtField(UnknownPrompt("name", name, {}), "inputs[1]").message(), "inputs[1]." + once);
}

// A key of 8 MB in the JSON of a request was answered with 25 MB, which no limit counted.
TEST(ErrorsTest, LongFieldsAreCut) {
  std::string key = "options.";
  while (key.size() < 100'000) key += "\u00e9";
  const absl::Status status = InvalidUtf8(key, 7);
  EXPECT_LE(ErrorField(status).size(), 200u);
  EXPECT_THAT(ErrorField(status), ::testing::StartsWith("options.\u00e9"));
  EXPECT_THAT(ErrorField(status), ::testing::EndsWith("\u00e9..."));
  EXPECT_EQ(status.message(), ErrorField(status) + ": is not valid UTF-8, first at byte 7");
  EXPECT_LE(ErrorField(AtField(InvalidUtf8(std::string(100'000, 'x'), 7), "inputs[1]")).size(), 200u);
}

TEST(ErrorsTest, StatusesMadeElsewhereHaveNoField) {
  EXPECT_EQ(ErrorField(absl::InternalError("x")), "");
  EXPECT_EQ(ErrorReason(absl::OkStatus()), "");
}

TEST(ErrorsTest, StatusesMadeElsewhereKeepTheirMessage) {
  EXPECT_EQ(AtField(absl::InternalError("why"), "ids").message(), "ids: why");
  EXPECT_EQ(RenameField(absl::InternalError("why"), "", "").message(), "why");
}

}  // namespace
}  // namespace longembed
