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

// Returns the bytes of a request with two inputs. The text of the second one is `text`, which may be invalid UTF-8.
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

// An element takes two bytes on the wire, but a hundred in memory.
TEST(WireTest, TooManyElementsAreRefusedBeforeParsing) {
  v1::EmbedRequest request, parsed;
  for (int64_t i = 0; i < kMaxElements; ++i) request.add_inputs();
  EXPECT_TRUE(ParseMessage(SerializeMessage(request), 1 << 20, parsed).ok());
  request.add_inputs();
  absl::Status status = ParseMessage(SerializeMessage(request), 1 << 20, parsed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "inputs: has 131073 elements; the limit is 131072");
  // The limit also holds for nested elements, where no input has too many by itself.
  request.clear_inputs();
  for (int i = 0; i < 2; ++i) {
    v1::Input& input = *request.add_inputs();
    for (int64_t j = 0; j < kMaxElements / 2 + 1; ++j) input.add_ranges();
  }
  status = ParseMessage(SerializeMessage(request), 1 << 20, parsed);
  EXPECT_EQ(ErrorReason(status), "TOO_MANY_ELEMENTS");
  EXPECT_EQ(ErrorField(status), "ranges");
}

// Each switch of a oneof between its fields allocates memory.
TEST(WireTest, SingularFieldsThatOccurTooOftenAreRefusedBeforeParsing) {
  std::string bytes;
  for (int64_t i = 0; i <= kMaxElements; ++i) bytes.append("\x0a\x00\x12\x00", 4);  // An empty text, empty token_ids.
  v1::Input parsed;
  EXPECT_EQ(ErrorReason(ParseMessage(Bytes(bytes), 1 << 20, parsed)), "TOO_MANY_ELEMENTS");
}

// Packed numbers take one byte each on the wire.
TEST(WireTest, TooManyNumbersAreRefusedBeforeParsing) {
  v1::EmbedRequest request, parsed;
  auto& ids = *request.add_inputs()->mutable_token_ids()->mutable_ids();
  ids.Resize(static_cast<int>(kMaxNumbers), 1);
  EXPECT_TRUE(ParseMessage(SerializeMessage(request), 1 << 24, parsed).ok());
  ids.Add(1);
  EXPECT_EQ(ParseMessage(SerializeMessage(request), 1 << 24, parsed).message(),
            "ids: has 4194305 elements; the limit is 4194304");
}

// Encodes a field. The tag takes two bytes if the number is above 15.
std::string Field(int number, int type, const std::string& content) {
  const int tag = number << 3 | type;
  if (tag < 128) return std::string(1, static_cast<char>(tag)) + content;
  return std::string{static_cast<char>((tag & 127) | 128), static_cast<char>(tag >> 7)} + content;
}

std::string Nested(int number, const std::string& content) {
  return Field(number, 2, std::string(1, static_cast<char>(content.size())) + content);
}

// Protobuf would keep unknown fields, which take a hundred bytes each.
TEST(WireTest, UnknownFieldsAreRefusedByNameAtEveryDepth) {
  v1::EmbedRequest parsed;
  const auto error = [&parsed](const std::string& bytes) { return ParseMessage(Bytes(bytes), 1000, parsed); };
  const std::string input = Nested(2, Nested(1, "x"));
  EXPECT_TRUE(error(input).ok());
  for (const std::string& unknown : {Field(90, 0, std::string(1, '\0')), Field(90, 2, std::string(1, '\0')),
                                     Field(90, 5, "1234"), Field(90, 1, "12345678"), Field(90, 3, Field(90, 4, ""))}) {
    const absl::Status whole = error(input + unknown);
    EXPECT_EQ(ErrorReason(whole), "UNKNOWN_FIELD");
    EXPECT_THAT(std::string(whole.message()), ::testing::HasSubstr("the request has a field number 90"));
    EXPECT_EQ(ErrorField(error(input + Nested(1, unknown))), "options");
    EXPECT_EQ(ErrorField(error(input + Nested(1, Nested(6, unknown)))), "options.extension");
    EXPECT_EQ(ErrorField(error(input + Nested(2, unknown))), "inputs[1]");
  }
}

// For a known field with another type, protobuf reports an unknown field.
TEST(WireTest, AFieldOfAnotherTypeIsRefused) {
  v1::EmbedRequest parsed;
  EXPECT_EQ(ErrorReason(ParseMessage(Bytes(Field(2, 0, "\1")), 1000, parsed)), "UNKNOWN_FIELD");
}

// Protobuf would cut the number to 32 bits: 2^32 + 5 became 5. JSON refuses it, too.
TEST(WireTest, NumbersBeyondTheirTypeAreRefused) {
  v1::EmbedRequest parsed;
  const auto varint = [](uint64_t value) {
    std::string bytes;
    for (; value >= 128; value >>= 7) bytes += static_cast<char>(value % 128 + 128);
    return bytes + static_cast<char>(value);
  };
  const auto refused = [&parsed](const std::string& bytes, const std::string& field) {
    const absl::Status status = ParseMessage(Bytes(bytes), 1000, parsed);
    return ErrorReason(status) == "UNKNOWN_FIELD" && ErrorField(status) == field;
  };
  constexpr uint64_t kBeyond = (1ull << 32) + 5;
  EXPECT_TRUE(refused(Nested(1, Field(7, 0, varint(kBeyond))), "options"));  // dimensions
  EXPECT_TRUE(refused(Nested(1, Field(5, 0, varint(kBeyond))), "options"));  // truncate, an enum
  EXPECT_TRUE(refused(Nested(1, Field(7, 0, varint(~0ull))), "options"));    // -1 of an int32
  EXPECT_TRUE(refused(Nested(2, Nested(2, Field(1, 0, varint(kBeyond)))), "inputs[0].token_ids"));
  EXPECT_TRUE(refused(Nested(2, Nested(2, Nested(1, varint(7) + varint(kBeyond)))), "inputs[0].token_ids"));
  // The largest numbers, and an enum's -1, which is refused by its value.
  for (const std::string& options : {Field(7, 0, varint((1ull << 32) - 1)), Field(5, 0, varint(~0ull))}) {
    EXPECT_TRUE(ParseMessage(Bytes(Nested(1, options)), 1000, parsed).ok());
  }
  EXPECT_EQ(parsed.options().truncate(), -1);
}

// Protobuf accepts repeated numbers in packed and in unpacked form.
TEST(WireTest, NumbersMayStandPackedOrOneByOne) {
  v1::EmbedRequest parsed;
  const std::string unpacked = Nested(2, Nested(2, Field(1, 0, "\5") + Field(1, 0, "\6")));
  ASSERT_TRUE(ParseMessage(Bytes(unpacked), 1000, parsed).ok());
  EXPECT_THAT(parsed.inputs(0).token_ids().ids(), ::testing::ElementsAre(5u, 6u));
}

TEST(WireTest, ReadsTheIdOfAnInvalidMessage) {
  v1::EmbedStreamRequest good, read;
  good.set_id("seven");
  good.set_more_parts(true);
  good.mutable_input()->set_text("ab#");
  std::string bytes = good.SerializeAsString();
  bytes.replace(bytes.find('#'), 1, "\xff");
  EXPECT_EQ(ErrorReason(ParseMessage(Bytes(bytes), 1000, read)), "INVALID_UTF8");
  ReadScalars(Bytes(bytes), read);
  EXPECT_EQ(read.id(), "seven");
  EXPECT_TRUE(read.more_parts());
  EXPECT_FALSE(read.has_input());
  ReadScalars(Bytes("\xff\xff"), read);
  EXPECT_TRUE(read.id().empty());
}

// The id of a part without its more_parts would be taken for the last part of its text.
TEST(WireTest, ReadsNothingOfAMessageThatIsTorn) {
  v1::EmbedStreamRequest good, read;
  good.set_id("seven");
  good.mutable_input()->set_text("abc");
  good.set_more_parts(true);
  const std::string bytes = good.SerializeAsString();
  for (const std::string& torn : {bytes.substr(0, bytes.size() - 1), bytes.substr(0, bytes.size() - 3),
                                  bytes + std::string("\x0c"), bytes + std::string(1, '\0')}) {
    EXPECT_FALSE(ParseMessage(Bytes(torn), 1000, read).ok());
    ReadScalars(Bytes(torn), read);
    EXPECT_TRUE(read.id().empty()) << read.ShortDebugString();
    EXPECT_FALSE(read.more_parts());
  }
}

TEST(WireTest, TooManyBytesAreRefusedBeforeParsing) {
  v1::EmbedRequest parsed;
  EXPECT_EQ(ErrorReason(ParseMessage(Bytes(std::string(11, 'x')), 10, parsed)), "REQUEST_TOO_LARGE");
}

}  // namespace
}  // namespace longembed
