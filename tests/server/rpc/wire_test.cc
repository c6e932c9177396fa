#include "server/rpc/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longembed/v1/embedding.pb.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

grpc::ByteBuffer Bytes(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

// A request whose second input's text is "ok" with one byte replaced.
std::string RequestWithText(const std::string& text) {
  v1::EmbedRequest request;
  request.add_inputs()->set_text("fine");
  request.add_inputs()->set_text(std::string(text.size(), '#'));
  std::string bytes = request.SerializeAsString();
  return bytes.replace(bytes.find(std::string(text.size(), '#')), text.size(), text);
}

TEST(WireTest, RoundTrip) {
  v1::EmbedRequest request, parsed;
  request.add_inputs()->set_text("grüße");
  ASSERT_TRUE(ParseMessage(SerializeMessage(request), 1000, parsed).ok());
  EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
}

TEST(WireTest, BadUtf8NamesTheFieldAndTheByte) {
  v1::EmbedRequest parsed;
  const absl::Status status = ParseMessage(Bytes(RequestWithText("ab\xff")), 1000, parsed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "INVALID_UTF8");
  EXPECT_EQ(ErrorField(status), "inputs[1].text");
  EXPECT_EQ(status.message(), "inputs[1].text: is not valid UTF-8, first at byte 2");
}

TEST(WireTest, GarbageIsMalformed) {
  v1::EmbedRequest parsed;
  for (const std::string& bytes : {std::string("\xff\xff\xff"), std::string("\x0a\x7f"), std::string("\x12")}) {
    const absl::Status status = ParseMessage(Bytes(bytes), 1000, parsed);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(status), "MALFORMED_REQUEST");
  }
}

// Two bytes each on the wire, and a hundred in memory.
TEST(WireTest, TooManyElementsAreRefusedBeforeParsing) {
  v1::EmbedRequest request, parsed;
  for (int64_t i = 0; i < kMaxElements; ++i) request.add_inputs();
  EXPECT_TRUE(ParseMessage(SerializeMessage(request), 1 << 20, parsed).ok());
  request.add_inputs();
  absl::Status status = ParseMessage(SerializeMessage(request), 1 << 20, parsed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "inputs: has 131073 elements; the limit is 131072");
  // Also below, where no input has too many by itself.
  request.clear_inputs();
  for (int i = 0; i < 2; ++i) {
    v1::Input& input = *request.add_inputs();
    for (int64_t j = 0; j < kMaxElements / 2 + 1; ++j) input.add_ranges();
  }
  status = ParseMessage(SerializeMessage(request), 1 << 20, parsed);
  EXPECT_EQ(ErrorReason(status), "TOO_MANY_ELEMENTS");
  EXPECT_EQ(ErrorField(status), "ranges");
}

TEST(WireTest, TooManyBytesAreRefusedBeforeParsing) {
  v1::EmbedRequest parsed;
  EXPECT_EQ(ErrorReason(ParseMessage(Bytes(std::string(11, 'x')), 10, parsed)), "REQUEST_TOO_LARGE");
}

}  // namespace
}  // namespace longembed
