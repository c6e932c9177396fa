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

TEST(ErrorsTest, StatusesMadeElsewhereHaveNoField) {
  EXPECT_EQ(ErrorField(absl::InternalError("x")), "");
  EXPECT_EQ(ErrorReason(absl::OkStatus()), "");
}

}  // namespace
}  // namespace longembed
