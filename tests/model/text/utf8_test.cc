#include "model/text/utf8.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace longembed {
namespace {

// Encodes any number of up to 21 bits, including invalid code points.
std::string Encode(uint32_t code_point) {
  const auto byte = [](uint32_t bits) { return static_cast<char>(bits); };
  if (code_point < 0x80) return {byte(code_point)};
  if (code_point < 0x800) return {byte(0xc0 | code_point >> 6), byte(0x80 | (code_point & 0x3f))};
  if (code_point < 0x10000) {
    return {byte(0xe0 | code_point >> 12), byte(0x80 | (code_point >> 6 & 0x3f)), byte(0x80 | (code_point & 0x3f))};
  }
  return {byte(0xf0 | code_point >> 18), byte(0x80 | (code_point >> 12 & 0x3f)), byte(0x80 | (code_point >> 6 & 0x3f)),
          byte(0x80 | (code_point & 0x3f))};
}

TEST(Utf8Test, ExactlyTheScalarValuesAreValid) {
  for (uint32_t code_point = 0; code_point < 0x1fffff; ++code_point) {
    const bool surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
    const bool valid = !surrogate && code_point <= 0x10ffff;
    ASSERT_EQ(!FirstInvalidUtf8Byte(Encode(code_point)).has_value(), valid) << code_point;
    // Also tests bytes that are checked eight at a time.
    const std::string within = "a" + Encode(code_point) + "12345678";
    ASSERT_EQ(FirstInvalidUtf8Byte(within), valid ? std::nullopt : std::optional<size_t>(1)) << code_point;
  }
}

TEST(Utf8Test, TellsTheFirstBadByte) {
  EXPECT_EQ(FirstInvalidUtf8Byte(""), std::nullopt);
  EXPECT_EQ(FirstInvalidUtf8Byte("ab\xff"), 2u);
  EXPECT_EQ(FirstInvalidUtf8Byte("é\x80z"), 2u);
  EXPECT_EQ(FirstInvalidUtf8Byte("\xc0\xaf"), 0u);          // An overlong "/".
  EXPECT_EQ(FirstInvalidUtf8Byte("\xe0\x80\xaf"), 0u);      // Overlong.
  EXPECT_EQ(FirstInvalidUtf8Byte("\xf0\x80\x80\xaf"), 0u);  // Overlong.
  EXPECT_EQ(FirstInvalidUtf8Byte("a\xe6\x9d"), 1u);         // Truncated.
  EXPECT_EQ(FirstInvalidUtf8Byte("a\xe6\x9d z"), 1u);
}

// Compares the index with a walk through a text whose code points cross the borders of its blocks.
TEST(CodePointIndexTest, FindsEveryPlace) {
  constexpr std::array kCodePoints{0x61u, 0xe9u, 0x4e2du, 0x1f600u};  // One to four bytes.
  for (const size_t least : std::array<size_t, 7>{0, 1, 255, 256, 257, 512, 1500}) {
    std::string text;
    for (size_t i = 0; text.size() < least; ++i) text += Encode(kCodePoints[i % kCodePoints.size()]);
    const CodePointIndex index(text);
    int64_t before = 0;
    for (size_t at = 0; at < text.size(); ++at) {
      EXPECT_EQ(index.Before(at), before);
      if (IsContinuationByte(text[at])) continue;
      EXPECT_EQ(index.ByteOf(before), at);
      ++before;
    }
    EXPECT_EQ(index.Before(text.size()), before);
    EXPECT_EQ(index.size(), before);
    EXPECT_EQ(index.ByteOf(before), text.size());
  }
}

}  // namespace
}  // namespace longembed
