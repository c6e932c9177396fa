#include "system/watched_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(WatchedFilesTest, ChecksOnceAnInterval) {
  const std::string path = absl::StrCat(::testing::TempDir(), "watched_files_", getpid());
  std::ofstream(path) << "1";
  WatchedFiles files({path}, absl::Seconds(1));
  const WatchedFiles::SteadyTime now;
  EXPECT_TRUE(files.Changed(now));
  EXPECT_FALSE(files.Changed(now + seconds(2)));
  std::ofstream(path) << "12";
  EXPECT_FALSE(files.Changed(now + milliseconds(2500)));  // The interval has not passed, so the file is not checked.
  EXPECT_TRUE(files.Changed(now + seconds(3)));
  std::filesystem::remove(path);
  EXPECT_TRUE(files.Changed(now + seconds(4)));
  EXPECT_FALSE(files.Changed(now + seconds(5)));
}

TEST(WatchedFilesTest, UnreadableFilesCountAsChanged) {
  const std::string path = absl::StrCat(::testing::TempDir(), "watched_unreadable_", getpid());
  std::ofstream(path) << "1";
  WatchedFiles files({path}, absl::Seconds(1));
  const WatchedFiles::SteadyTime now;
  const absl::Status full = absl::NotFoundError("too many open files");
  EXPECT_TRUE(files.Changed(now));
  EXPECT_TRUE(files.ShouldReport(full));
  EXPECT_FALSE(files.Changed(now + milliseconds(500)));
  EXPECT_TRUE(files.Changed(now + seconds(1)));
  EXPECT_FALSE(files.ShouldReport(full));
  EXPECT_TRUE(files.Changed(now + seconds(2)));
  EXPECT_TRUE(files.ShouldReport(absl::NotFoundError("no such file")));
  EXPECT_TRUE(files.Changed(now + seconds(3)));
  EXPECT_TRUE(files.ShouldReport(absl::OkStatus()));
  EXPECT_FALSE(files.Changed(now + seconds(4)));
  EXPECT_TRUE(files.ShouldReport(absl::InvalidArgumentError("broken")));  // What was read need not be read again.
  EXPECT_FALSE(files.Changed(now + seconds(5)));
  std::filesystem::remove(path);
}

// For example, an operator fixes the permissions of a file: nothing is written, but the file becomes readable.
TEST(WatchedFilesTest, AnotherModeIsAChange) {
  const std::string path = absl::StrCat(::testing::TempDir(), "watched_mode_", getpid());
  std::ofstream(path) << "1";
  std::filesystem::permissions(path, std::filesystem::perms::none);
  WatchedFiles files({path}, absl::Seconds(1));
  const WatchedFiles::SteadyTime now;
  EXPECT_TRUE(files.Changed(now));
  EXPECT_FALSE(files.Changed(now + seconds(1)));
  absl::SleepFor(absl::Milliseconds(50));  // The kernel's file timestamps are coarser than our clock.
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  EXPECT_TRUE(files.Changed(now + seconds(2)));
  std::filesystem::remove(path);
}

TEST(ReadWholeFileTest, GivesEveryByte) {
  const std::string path = absl::StrCat(::testing::TempDir(), "whole_file_", getpid());
  for (const std::string& content : {std::string(), std::string("a\0b\n", 4), std::string(100000, 'x')}) {
    std::ofstream(path, std::ios::binary) << content;
    EXPECT_EQ(ReadWholeFile(path).value(), content);
  }
  std::filesystem::remove(path);
}

TEST(ReadWholeFileTest, ReportsWhyAFileCannotBeRead) {
  for (const auto& [path, why] : {std::pair{"/nonexistent/file", "No such file"}, std::pair{"/", "Is a directory"}}) {
    const absl::Status status = ReadWholeFile(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  }
}

// A wrong file in the place of one that is watched must not take all memory.
TEST(ReadWholeFileTest, RefusesAHugeFile) {
  const std::string path = absl::StrCat(::testing::TempDir(), "huge_file_", getpid());
  std::ofstream(path, std::ios::binary) << "x";
  std::filesystem::resize_file(path, kMaxWholeFileBytes);
  EXPECT_EQ(ReadWholeFile(path)->size(), kMaxWholeFileBytes);
  std::filesystem::resize_file(path, kMaxWholeFileBytes + 1);
  const absl::Status status = ReadWholeFile(path).status();
  std::filesystem::remove(path);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 16777217 bytes; at most 16777216 are read"));
}

// The caller holds a lock that every TLS handshake needs.
TEST(ReadWholeFileTest, DoesNotWaitForAPipe) {
  const std::string path = absl::StrCat(::testing::TempDir(), "pipe_", getpid());
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const absl::Status status = ReadWholeFile(path).status();
  std::filesystem::remove(path);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("neither a file nor a link to one"));
}

}  // namespace
}  // namespace longembed
