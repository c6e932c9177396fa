#include "client/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Outcome {
  int status;
  std::string out;
  std::string err;
};

Outcome Longembed(std::vector<const char*> arguments, const std::string& input = "") {
  arguments.insert(arguments.begin(), "longembed");
  std::istringstream in(input);
  std::ostringstream out, err;
  const int status =
      RunCommandLine(static_cast<int>(arguments.size()), arguments.data(), {.in = in, .out = out, .err = err});
  return {status, out.str(), err.str()};
}

class CommandLineTest : public ::testing::Test {
 protected:
  Outcome Embed(std::vector<const char*> arguments, const std::string& input) {
    arguments.insert(arguments.begin(), {"embed", "--server", address_.c_str()});
    return Longembed(arguments, input);
  }

  static std::string Lines(int count) {
    std::string lines;
    for (int i = 0; i < count; ++i) {
      lines += "{\"id\": " + std::to_string(i) + ", \"text\": \"" + std::string(i + 1, 'x') + "\"}\n";
    }
    return lines;
  }

  ScriptedService service_;
  const std::string address_ = service_.address();
};

TEST_F(CommandLineTest, AnswersInOrderWhateverTheBatches) {
  const Outcome outcome = Embed({"--batch", "3", "--concurrency", "4"}, Lines(20));
  EXPECT_EQ(outcome.status, kExitOk) << outcome.err;
  std::istringstream out(outcome.out);
  int count = 0;
  for (std::string line; std::getline(out, line); ++count) {
    EXPECT_THAT(line,
                HasSubstr("{\"id\":" + std::to_string(count) + ",\"embedding\":[" + std::to_string(count + 1) + "],"));
  }
  EXPECT_EQ(count, 20);
  EXPECT_EQ(service_.calls(), 7);
}

TEST_F(CommandLineTest, SomeMayFail) {
  const Outcome outcome = Embed({"--partial", "--text", "bad", "--text", "good"}, "");
  EXPECT_EQ(outcome.status, kExitSomeFailed);
  EXPECT_THAT(outcome.out, HasSubstr("{\"id\":1,\"error\":{\"code\":3"));
  EXPECT_THAT(outcome.out, HasSubstr("{\"id\":2,\"embedding\":[4]"));
}

TEST_F(CommandLineTest, ABadLineEndsTheOutputThere) {
  const Outcome outcome = Embed({}, Lines(2) + "{oops\n" + Lines(1));
  EXPECT_EQ(outcome.status, kExitUsage);
  EXPECT_THAT(outcome.err, HasSubstr("standard input, line 3"));
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 2);
}

TEST_F(CommandLineTest, ServerErrorsAreOneSentence) {
  service_.FailNext({{grpc::INVALID_ARGUMENT, "inputs[0]: is empty"}, ""});
  const Outcome outcome = Embed({}, Lines(1));
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_EQ(outcome.err, "longembed: inputs[0]: is empty\n");
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST_F(CommandLineTest, WritesForAPerson) {
  EXPECT_THAT(Embed({"--output", "text", "--text", "abc"}, "").out, HasSubstr("3 tokens: [+3.0000, ...]"));
}

TEST(CommandLineUsageTest, WrongArgumentsAreUsageErrors) {
  EXPECT_EQ(Longembed({}).status, kExitUsage);
  EXPECT_EQ(Longembed({"embed", "--truncate", "middle"}).status, kExitUsage);
  EXPECT_EQ(Longembed({"embed", "--prompt", "a", "--prompt-name", "b"}).status, kExitUsage);
  EXPECT_EQ(Longembed({"embed", "/nonexistent.jsonl"}).status, kExitUsage);
  const Outcome extension = Longembed({"embed", "--extension", "{\"windoes\": {}}"});
  EXPECT_EQ(extension.status, kExitUsage);
  EXPECT_THAT(extension.err, HasSubstr("windoes"));
  EXPECT_EQ(Longembed({"--help"}).status, kExitOk);
}

TEST(CommandLineUsageTest, AnAbsentServerIsSaid) {
  const Outcome outcome = Longembed({"models", "--server", "127.0.0.1:1", "--timeout", "1"});
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_THAT(outcome.err, HasSubstr("longembed: "));
}

}  // namespace
}  // namespace longembed::client
