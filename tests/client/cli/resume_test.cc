#include "client/cli/resume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace longembed::client {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr char kAnswer[] = "{\"id\":\"a\",\"embedding\":[0.5],\"tokens\":1}\n";
constexpr char kFailed[] = "{\"id\":[1],\"error\":{\"code\":3,\"message\":\"no\"}}\n";

class ResumeTest : public ::testing::Test {
 protected:
  ~ResumeTest() override { std::filesystem::remove(path_); }

  void Write(const std::string& content) const { std::ofstream(path_, std::ios::binary) << content; }
  std::string Content() const {
    std::stringstream content;
    content << std::ifstream(path_, std::ios::binary).rdbuf();
    return content.str();
  }

  const std::string path_ = ::testing::TempDir() + "/resume_test_" +
                            ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl";
};

TEST_F(ResumeTest, ReadsEveryAnswerAndWhichOfThemFailed) {
  Write(std::string(kAnswer) + kFailed + kAnswer);
  const auto earlier = ReadEarlierAnswers(path_);
  ASSERT_TRUE(earlier.ok()) << earlier.status();
  EXPECT_THAT(earlier->ids, UnorderedElementsAre("\"a\"", "\"a\"", "[1]"));
  EXPECT_EQ(earlier->failed, 1);
}

TEST_F(ResumeTest, AFileThatDoesNotExistHasNoAnswers) {
  const auto earlier = ReadEarlierAnswers(path_);
  ASSERT_TRUE(earlier.ok()) << earlier.status();
  EXPECT_TRUE(earlier->ids.empty());
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ResumeTest, CutsOffALineThatWasNotFinished) {
  const std::string line = kAnswer;
  for (size_t bytes = 0; bytes < line.size(); ++bytes) {
    Write(line + line.substr(0, bytes));
    const auto earlier = ReadEarlierAnswers(path_);
    ASSERT_TRUE(earlier.ok()) << earlier.status();
    EXPECT_EQ(earlier->ids.size(), 1u);
    EXPECT_EQ(Content(), line);
  }
}

TEST_F(ResumeTest, LeavesForeignFilesUnchanged) {
  const std::string contents[] = {
      "not an answer",  // There is no newline at the end, as in a line that was cut off.
      "{\"text\":\"cut o",
      "{\"id\":1,\"text\":\"an input\"}",
      std::string(kAnswer) + "{\"identity\": \"x",
      "{\"id\":1,\"text\":\"an input\"}\n",
      "[1]\n",
      std::string(kAnswer) + "\n" + kAnswer,
      "{\"id\":" + std::string(200'000, '[') + std::string(200'000, ']') + ",\"embedding\":[1]}\n",
  };
  for (const std::string& content : contents) {
    Write(content);
    const absl::Status status = ReadEarlierAnswers(path_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << content.substr(0, 50);
    EXPECT_THAT(std::string(status.message()), HasSubstr("is not an answer")) << content.substr(0, 50);
    EXPECT_TRUE(Content() == content) << content.substr(0, 50);
  }
}

TEST_F(ResumeTest, VectorsOfTwoRecipesAreAnError) {
  const std::string first = "{\"id\":1,\"embedding\":[0.5],\"recipe\":\"r1\"}\n";
  const std::string second = "{\"id\":2,\"embedding\":[0.5],\"recipe\":\"r2\"}\n";
  Write(kAnswer + first + kFailed + first);
  EXPECT_EQ(ReadEarlierAnswers(path_)->recipe, "r1");
  Write(first + second);
  const absl::Status status = ReadEarlierAnswers(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 2: vectors of recipe r2 are not comparable"));
}

TEST_F(ResumeTest, AFileThatCannotBeOpenedIsAnError) {
  std::filesystem::create_symlink(path_, path_);  // A link to itself, which even root cannot open.
  const absl::Status status = ReadEarlierAnswers(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot be opened"));
}

TEST_F(ResumeTest, AFileThatCannotBeReadIsAnError) {
  // The directory can be opened, but reading it fails.
  EXPECT_EQ(ReadEarlierAnswers(::testing::TempDir()).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace longembed::client
