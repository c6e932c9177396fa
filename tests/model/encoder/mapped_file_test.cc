// Tests memory-mapped files.
#include "model/encoder/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace longembed {
namespace {

using ::testing::HasSubstr;

std::string Write(const std::string& name, const std::string& content) {
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) / name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(MappedFileTest, PagesThatWereDroppedAreReadAgain) {
  std::string content(1 << 20, 'a');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i % 251);
  const auto file = MappedFile::Open(Write("mapped", content));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto bytes = (*file)->bytes();
  ASSERT_EQ(bytes.size(), content.size());
  EXPECT_EQ(std::memcmp(bytes.data(), content.data(), content.size()), 0);
  (*file)->DropPages(bytes.data() + 100, content.size() / 2);
  EXPECT_EQ(std::memcmp(bytes.data(), content.data(), content.size()), 0);
}

TEST(MappedFileTest, MemoryOfOthersIsLeftAlone) {
  const auto file = MappedFile::Open(Write("mapped", std::string(1 << 16, 'a')));
  std::vector<std::byte> mine(1 << 20, std::byte{7});
  (*file)->DropPages(mine.data(), mine.size());
  EXPECT_TRUE(std::ranges::all_of(mine, [](std::byte b) { return b == std::byte{7}; }));
}

TEST(MappedFileTest, SaysWhatIsWrongWithAFile) {
  const auto missing = MappedFile::Open("/nonexistent/encoder.pt");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent/encoder.pt"));
  EXPECT_FALSE(MappedFile::Open(Write("empty", "")).ok());
  EXPECT_FALSE(MappedFile::Open(::testing::TempDir()).ok());
}

}  // namespace
}  // namespace longembed
