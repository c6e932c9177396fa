#include "client/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stop_token>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

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

  static std::string ReadAll(const std::string& path) {
    std::stringstream content;
    content << std::ifstream(path).rdbuf();
    return content.str();
  }

  ScriptedService service_;
  const std::string address_ = service_.address();
};

TEST_F(CommandLineTest, OutputIsInOrderAndAnswersNeedNotBe) {
  service_.AnswerInDisorder();
  const Outcome outcome = Embed({"--in-flight", "7"}, Lines(20));
  EXPECT_EQ(outcome.status, kExitOk) << outcome.err;
  std::istringstream out(outcome.out);
  int count = 0;
  for (std::string line; std::getline(out, line); ++count) {
    EXPECT_THAT(line,
                HasSubstr("{\"id\":" + std::to_string(count) + ",\"embedding\":[" + std::to_string(count + 1) + "],"));
  }
  EXPECT_EQ(count, 20);
  EXPECT_EQ(service_.calls(), 1);
}

TEST_F(CommandLineTest, ABrokenStreamLosesNothingAndRepeatsNothing) {
  service_.AnswerInDisorder();
  for (const int answers : {0, 3, 1, 8}) service_.BreakNextStreamAfter(answers);
  const Outcome outcome = Embed({}, Lines(60));
  EXPECT_EQ(outcome.status, kExitOk) << outcome.err;
  EXPECT_EQ(outcome.out, Embed({}, Lines(60)).out);
  EXPECT_EQ(service_.calls(), 6);
}

TEST_F(CommandLineTest, ResumeSkipsTextsThatTheFileAnswers) {
  const std::string path = ::testing::TempDir() + "/resume.jsonl";
  const std::string whole = Embed({}, Lines(9)).out;
  // An earlier run was interrupted in the middle of its fifth line.
  const size_t fifth = whole.find("{\"id\":4");
  std::ofstream(path) << whole.substr(0, fifth + 12);
  EXPECT_EQ(Embed({"--out", path.c_str(), "--resume"}, Lines(9)).status, kExitOk);
  EXPECT_EQ(ReadAll(path), whole);
  EXPECT_EQ(Embed({"--out", path.c_str(), "--resume"}, Lines(9)).status, kExitOk);
  EXPECT_EQ(Longembed({"embed", "--resume"}).status, kExitUsage);
  EXPECT_EQ(Embed({"--out", path.c_str(), "--resume", "--output", "text"}, Lines(9)).status, kExitUsage);
  std::ofstream(path) << "not an answer\n";
  EXPECT_THAT(Embed({"--out", path.c_str(), "--resume"}, Lines(1)).err, HasSubstr("line 1: is not an answer"));
}

// Another server, or the same one after an update, may have another model.
TEST_F(CommandLineTest, VectorsOfTwoRecipesAreNotMixed) {
  service_.AnswerWithRecipes({"first", "second"});
  service_.BreakNextStreamAfter(3);
  const Outcome broken = Embed({}, Lines(20));
  EXPECT_EQ(broken.status, kExitFailed);
  EXPECT_THAT(broken.err, HasSubstr("recipe second are not comparable with those before, of recipe first"));
  EXPECT_THAT(broken.out, HasSubstr("\"recipe\":\"first\"}\n"));
  EXPECT_THAT(broken.out, Not(HasSubstr("second")));

  const std::string path = ::testing::TempDir() + "/resume_recipes.jsonl";
  std::ofstream(path) << broken.out;
  const Outcome resumed = Embed({"--out", path.c_str(), "--resume"}, Lines(20));
  EXPECT_EQ(resumed.status, kExitFailed);
  EXPECT_THAT(resumed.err, HasSubstr("recipe second are not comparable"));
  EXPECT_EQ(ReadAll(path), broken.out);
  service_.AnswerWithRecipes({"first"});
  EXPECT_EQ(Embed({"--out", path.c_str(), "--resume"}, Lines(20)).status, kExitOk);
}

// If several texts have the same id, the number of their answers determines how many are skipped.
TEST_F(CommandLineTest, ResumeSkipsOneTextForEachAnswer) {
  const std::string path = ::testing::TempDir() + "/resume_equal_ids.jsonl";
  std::string texts;
  for (const char* text : {"a", "bb", "ccc", "dddd"}) texts += "{\"id\": 7, \"text\": \"" + std::string(text) + "\"}\n";
  texts += "{\"text\": \"eeeee\"}\n";
  const std::string whole = Embed({}, texts).out;
  for (size_t end = whole.find('\n'); end != std::string::npos; end = whole.find('\n', end + 1)) {
    std::ofstream(path) << whole.substr(0, end + 1);
    EXPECT_EQ(Embed({"--out", path.c_str(), "--resume"}, texts).status, kExitOk);
    EXPECT_EQ(ReadAll(path), whole);
  }
}

TEST_F(CommandLineTest, ResumeReportsEarlierFailures) {
  const std::string path = ::testing::TempDir() + "/resume_failures.jsonl";
  std::remove(path.c_str());
  const std::string texts = "{\"id\": \"x\", \"text\": \"bad\"}\n" + Lines(2);
  EXPECT_EQ(Embed({"--out", path.c_str(), "--resume", "--partial"}, texts).status, kExitSomeFailed);
  const std::string whole = ReadAll(path);
  const Outcome outcome = Embed({"--out", path.c_str(), "--resume", "--partial"}, texts);
  EXPECT_EQ(outcome.status, kExitSomeFailed);
  EXPECT_EQ(outcome.err, "longembed: 1 of the texts failed in earlier runs; " + path + " says why\n");
  EXPECT_EQ(ReadAll(path), whole);
}

TEST_F(CommandLineTest, NothingIsWrittenOverTheInput) {
  const std::string path = ::testing::TempDir() + "/input.jsonl";
  std::ofstream(path) << Lines(1);
  for (const bool resume : {false, true}) {
    std::vector<const char*> arguments{"--out", path.c_str(), path.c_str()};
    if (resume) arguments.push_back("--resume");
    const Outcome outcome = Embed(arguments, "");
    EXPECT_EQ(outcome.status, kExitUsage);
    EXPECT_THAT(outcome.err, HasSubstr("--out"));
    EXPECT_EQ(ReadAll(path), Lines(1));
  }
}

// At most eight times --in-flight answers may wait for the answer of the first text.
TEST_F(CommandLineTest, ATextThatTakesLongHoldsUpTheOthers) {
  const std::string whole = Embed({}, Lines(40)).out;
  service_.HoldFirstUntil(16);
  EXPECT_EQ(Embed({"--in-flight", "2"}, Lines(40)).out, whole);
  service_.HoldFirstUntil(17);
  const Outcome outcome = Embed({"--in-flight", "2", "--timeout", "1"}, Lines(40));
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_EQ(outcome.err, "longembed: the server gave no answer for 1s\n");
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST_F(CommandLineTest, ALongTextGoesInParts) {
  const std::string text(9 << 20, 'x');
  const Outcome outcome = Embed({}, "{\"id\": 1, \"text\": \"" + text + "\"}\n");
  EXPECT_THAT(outcome.out, HasSubstr("\"embedding\":[" + std::to_string(text.size()) + "]")) << outcome.err;
  EXPECT_LT(service_.largest_message(), size_t{1 << 20} + 100);
}

TEST_F(CommandLineTest, ATextThatFailsEndsTheOutputBeforeIt) {
  const Outcome outcome = Embed({"--text", "good", "--text", "bad", "--text", "good"}, "");
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_EQ(outcome.err, "longembed: the text with the id 2: a \"bad\" text\n");
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 1);
}

TEST_F(CommandLineTest, PartialWritesALineForEachError) {
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

// Lines that the client itself knows to be wrong, each with the id that its error gets.
TEST_F(CommandLineTest, PartialContinuesAfterBadLines) {
  const std::pair<std::string, std::string> bad_lines[] = {
      {"{oops", "2"},
      {"[1]", "2"},
      {R"({"id": "cut", "text": "a)", "\"cut\""},
      {R"({"id": "no text"})", "\"no text\""},
      {R"({"id": "large", "text": "a", "score": 1e999})", "\"large\""},
      {R"({"id": [4, {"id": 5}], "text": 3})", R"([4,{"id":5}])"},
      {R"({"id": "late", "text": "a", "ranges": [3]})", "\"late\""},
      {"{\"id\": \"bytes\", \"text\": \"a\xff\"}", "\"bytes\""},
      {R"({"id": {"a": 1}, "text": "\ud800"})", R"({"a":1})"},
      {R"({"text": "\ud800", "id": "after"})", "2"},
      {R"({"other": {"id": 7}, "text": "a)", "2"},
  };
  for (const auto& [line, id] : bad_lines) {
    const std::string path = ::testing::TempDir() + "/bad_line.jsonl";
    std::remove(path.c_str());
    const std::string texts = "{\"text\": \"a\"}\n" + line + "\n{\"text\": \"ccc\"}\n";
    const int before = service_.inputs();
    EXPECT_EQ(Embed({"--partial", "--out", path.c_str()}, texts).status, kExitSomeFailed) << line;
    const std::string whole = ReadAll(path);
    std::istringstream out(whole);
    std::string first, second, third;
    EXPECT_TRUE(std::getline(out, first) && std::getline(out, second) && std::getline(out, third)) << whole;
    EXPECT_THAT(first, HasSubstr("{\"id\":1,\"embedding\":[1]"));
    EXPECT_THAT(second, HasSubstr("{\"id\":" + id + ",\"error\":{\"code\":3,\"message\":\"standard input, line 2: "));
    EXPECT_THAT(third, HasSubstr("{\"id\":3,\"embedding\":[3]"));
    EXPECT_EQ(service_.inputs() - before, 2);
    // A second run has nothing left to do.
    EXPECT_EQ(Embed({"--partial", "--out", path.c_str(), "--resume"}, texts).status, kExitSomeFailed) << line;
    EXPECT_EQ(Embed({"--out", path.c_str(), "--resume"}, texts).status, kExitSomeFailed) << line;
    EXPECT_EQ(ReadAll(path), whole);
    EXPECT_EQ(service_.inputs() - before, 2);
  }
}

// The server answers the text before it has read all of its parts.
TEST_F(CommandLineTest, PartialContinuesAfterATextThatIsTooLarge) {
  service_.set_max_text_bytes(2 << 20);
  const std::string path = ::testing::TempDir() + "/too_large.jsonl";
  std::remove(path.c_str());
  const std::string large = "{\"id\": \"large\", \"text\": \"" + std::string(9 << 20, 'x') + "\"}\n";
  const std::string texts = Lines(3) + large + Lines(3);
  EXPECT_EQ(Embed({"--partial", "--out", path.c_str()}, texts).status, kExitSomeFailed);
  const std::string whole = ReadAll(path);
  EXPECT_EQ(std::count(whole.begin(), whole.end(), '\n'), 7);
  EXPECT_THAT(whole, HasSubstr("{\"id\":\"large\",\"error\":{\"code\":3,\"message\":\"too large\"}}\n{\"id\":0,\"emb"));
  EXPECT_EQ(service_.calls(), 1);
  EXPECT_EQ(Embed({"--partial", "--out", path.c_str(), "--resume"}, texts).status, kExitSomeFailed);
  EXPECT_EQ(ReadAll(path), whole);
  EXPECT_EQ(service_.calls(), 1);
}

TEST_F(CommandLineTest, PartialContinuesAfterTextsThatAreNotUtf8) {
  const Outcome lines = Embed({"--partial", "--format", "text"}, "a\nb\xff\nccc\n");
  EXPECT_EQ(lines.status, kExitSomeFailed);
  EXPECT_THAT(lines.out, HasSubstr("\"standard input, line 2: not UTF-8: byte at index 1: 0xFF\""));
  EXPECT_THAT(lines.out, HasSubstr("{\"id\":3,\"embedding\":[3]"));
  EXPECT_THAT(Embed({"--partial", "--text", "a", "--text", "b\xff", "--text", "c"}, "").out,
              HasSubstr("{\"id\":2,\"error\":{\"code\":3,\"message\":\"--text, number 2: not UTF-8"));
  const Outcome strict = Embed({"--format", "text"}, "a\nb\xff\nccc\n");
  EXPECT_EQ(strict.status, kExitUsage);
  EXPECT_EQ(std::count(strict.out.begin(), strict.out.end(), '\n'), 1);
  const Outcome explain = Longembed({"explain", "--server", address_.c_str(), "--text", "b\xff"});
  EXPECT_EQ(explain.status, kExitUsage);
  EXPECT_EQ(explain.err, "longembed: --text, number 1: not UTF-8: byte at index 1: 0xFF\n");
}

// The error of the line contains the file's name.
TEST_F(CommandLineTest, AFileWhoseNameIsNotUtf8) {
  const std::string path = ::testing::TempDir() + "/bad_\xff_name.jsonl";
  std::ofstream(path) << "{oops\n";
  const Outcome outcome = Embed({"--partial", path.c_str()}, "");
  EXPECT_EQ(outcome.status, kExitSomeFailed);
  EXPECT_THAT(outcome.out, HasSubstr("{\"id\":1,\"error\":"));
}

// An output that accepts half a line and then waits.
class HalfALine : public std::stringbuf {
 public:
  void WaitForHalf() { half_.WaitForNotification(); }
  void GoOn() { go_on_.Notify(); }

 private:
  std::streamsize xsputn(const char* bytes, std::streamsize count) override {
    if (count == 0 || half_.HasBeenNotified()) return std::stringbuf::xsputn(bytes, count);
    const std::streamsize half = std::stringbuf::xsputn(bytes, count / 2);
    half_.Notify();
    go_on_.WaitForNotification();
    return half + std::stringbuf::xsputn(bytes + half, count - half);
  }
  absl::Notification half_, go_on_;
};

TEST_F(CommandLineTest, AnInterruptWaitsForTheEndOfALineAndThenNothingIsWritten) {
  HalfALine buffer;
  std::ostream out(&buffer);
  std::ostringstream err;
  std::istringstream in(Lines(2000));
  std::stop_source interrupt;
  const char* const arguments[] = {"longembed", "embed", "--server", address_.c_str()};
  std::thread command([&] {
    const Streams streams{.in = in, .out = out, .err = err, .interrupt = interrupt.get_token()};
    EXPECT_EQ(RunCommandLine(4, arguments, streams), kExitFailed);
  });
  buffer.WaitForHalf();
  std::string at_interrupt;
  std::thread interrupter([&] {
    interrupt.request_stop();
    at_interrupt = buffer.str();
  });
  while (!interrupt.stop_requested()) absl::SleepFor(absl::Milliseconds(1));
  absl::SleepFor(absl::Milliseconds(20));  // By now the command waits for the rest of the line.
  buffer.GoOn();
  interrupter.join();
  command.join();
  EXPECT_THAT(at_interrupt, EndsWith("\n"));
  EXPECT_EQ(buffer.str(), at_interrupt);
  EXPECT_EQ(err.str(), "longembed: interrupted\n");
}

TEST_F(CommandLineTest, ServerErrorsAreOneSentence) {
  service_.FailNext({{grpc::INVALID_ARGUMENT, "inputs[0]: is empty"}, ""});
  const Outcome outcome = Embed({}, Lines(1));
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_EQ(outcome.err, "longembed: inputs[0]: is empty\n");
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST_F(CommandLineTest, AReasonOfTheServerIsNoQuestionOfTheConnection) {
  google::rpc::ErrorInfo info;
  info.set_reason("DRAINING");
  google::rpc::Status details;
  details.set_code(grpc::UNAVAILABLE);
  details.set_message("the server is shutting down");
  details.add_details()->PackFrom(info);
  for (int i = 0; i < 9; ++i) {
    service_.FailNext({{grpc::UNAVAILABLE, details.message(), details.SerializeAsString()}, "1"});
  }
  EXPECT_EQ(Embed({}, Lines(1)).err, "longembed: the server is shutting down\n");
}

TEST_F(CommandLineTest, WritesText) {
  EXPECT_THAT(Embed({"--output", "text", "--text", "abc"}, "").out, HasSubstr("3 tokens: [+3.0000, ...]"));
}

TEST(CommandLineUsageTest, WrongArgumentsAreUsageErrors) {
  EXPECT_EQ(Longembed({}).status, kExitUsage);
  EXPECT_EQ(Longembed({"embed", "--truncate", "middle"}).status, kExitUsage);
  EXPECT_EQ(Longembed({"embed", "--prompt", "a", "--prompt-name", "b"}).status, kExitUsage);
  EXPECT_EQ(Longembed({"embed", "/nonexistent.jsonl"}).status, kExitUsage);
  const std::pair<const char*, const char*> numbers[] = {
      {"--timeout", "nan"},    {"--timeout", "0"},      {"--timeout", "-1"},    {"--timeout", "soon"},
      {"--dimensions", "010"}, {"--dimensions", "0x1"}, {"--dimensions", "-1"}, {"--dimensions", "4294967296"},
      {"--in-flight", "010"},  {"--in-flight", "0"},    {"--in-flight", "1.5"},
  };
  for (const auto& [flag, value] : numbers) {
    const Outcome outcome = Longembed({"embed", "--text", "a", flag, value});
    EXPECT_EQ(outcome.status, kExitUsage) << flag << " " << value;
    EXPECT_THAT(outcome.err, HasSubstr(flag));
  }
  EXPECT_THAT(Longembed({"embed", "--text", "a", "--out", "/nonexistent/out"}).err,
              HasSubstr("--out: /nonexistent/out cannot be written: No such file or directory"));
  const Outcome extension = Longembed({"embed", "--extension", "{\"windoes\": {}}"});
  EXPECT_EQ(extension.status, kExitUsage);
  EXPECT_THAT(extension.err, HasSubstr("windoes"));
  EXPECT_EQ(Longembed({"--help"}).status, kExitOk);
}

// A script gives an empty value for a variable that is not set.
TEST(CommandLineUsageTest, EmptyValuesAreNotIgnored) {
  for (const char* flag :
       {"--server", "--root-certificates", "--api-key-file", "--model", "--prompt-name", "--extension", "--profile",
        "--positions", "--spans", "--out", "--dimensions", "--max-tokens"}) {
    const Outcome outcome = Longembed({"embed", "--text", "a", flag, ""});
    EXPECT_EQ(outcome.status, kExitUsage) << flag;
    EXPECT_THAT(outcome.err, HasSubstr(flag));
  }
  for (const char* flag : {"--windows", "--calibration", "--always", "--recommended", "--tls", "--partial"}) {
    const Outcome outcome = Longembed({"embed", "--text", "a", (std::string(flag) + "=").c_str()});
    EXPECT_EQ(outcome.status, kExitUsage) << flag;
    EXPECT_EQ(outcome.err, std::string("longembed: ") + flag + ": the value is empty\n");
  }
  EXPECT_EQ(Longembed({"models", "--server", ""}).status, kExitUsage);
  EXPECT_EQ(Longembed({"tokenize", "--text", "a", "--model", ""}).status, kExitUsage);
}

// A word that looks like a flag may be the value of an option.
TEST_F(CommandLineTest, AnEmptyFlagIsTakenAsText) {
  const Outcome outcome = Embed({"--text", "--windows=", "--text=--tls="}, "");
  EXPECT_EQ(outcome.status, kExitOk) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("\"embedding\":[10]"));
}

// protobuf would print an error of its own about a string that is not UTF-8.
TEST(CommandLineUsageTest, ValuesAreUtf8) {
  for (const char* flag : {"--model", "--prompt-name", "--prompt", "--profile", "--extension"}) {
    const Outcome outcome = Longembed({"explain", "--text", "a", flag, "b\xff"});
    EXPECT_EQ(outcome.status, kExitUsage) << flag;
    EXPECT_EQ(outcome.err, std::string("longembed: ") + flag + ": not UTF-8: byte at index 1: 0xFF\n");
  }
  EXPECT_EQ(Longembed({"health", "--service", "\xff"}).status, kExitUsage);
  EXPECT_THAT(Longembed({"models", "--api-key-file", "/absent\xff"}).err, HasSubstr("cannot be read"));
}

TEST(CommandLineUsageTest, AFlagWithAValueIsGivenOnce) {
  EXPECT_EQ(Longembed({"embed", "--text", "a", "--windows=256", "--windows=512"}).status, kExitUsage);
  EXPECT_EQ(Longembed({"embed", "--text", "a", "--calibration=0.5", "--calibration"}).status, kExitUsage);
}

TEST_F(CommandLineTest, AnEmptyPromptIsNoPrompt) {
  EXPECT_EQ(Embed({"--text", "a"}, "").status, kExitOk);
  EXPECT_EQ(service_.options().prompting_case(), v1::EmbedOptions::PROMPTING_NOT_SET);
  EXPECT_EQ(Embed({"--text", "a", "--prompt", ""}, "").status, kExitOk);
  EXPECT_EQ(service_.options().prompting_case(), v1::EmbedOptions::kPrompt);
}

// CLI11 itself would report the options' values as missing files.
TEST(CommandLineUsageTest, MisspelledWordsAreReportedAsSuch) {
  const std::pair<std::vector<const char*>, const char*> rows[] = {
      {{"embed", "--prompt_name", "query"}, "unknown option --prompt_name of embed; did you mean --prompt-name?"},
      {{"embed", "--prompt_name=query"}, "unknown option --prompt_name of embed; did you mean --prompt-name?"},
      {{"embed", "--input_type", "query"}, "unknown option --input_type of embed; did you mean --input-type?"},
      {{"explain", "--text", "--text", "-windows"}, "unknown option -windows of explain; did you mean --windows?"},
      {{"models", "--windows"}, "unknown option --windows of models"},
      {{"embed", "--windows", "128"}, "--windows takes its value after \"=\": --windows=128"},
      {{"embed", "--calibration", "0.5", "a.jsonl"}, "--calibration takes its value after \"=\": --calibration=0.5"},
      {{}, "a command is missing: embed, explain, tokenize, "},
      {{"embd", "--text", "a"}, "unknown command embd; did you mean embed?; there are embed, explain, tokenize, "},
      {{"--server", "a:1", "embed"}, "--server belongs after the command: longembed embed --server"},
      {{"--sever", "a:1", "embed"}, "unknown option --sever; a command comes first: embed, explain, "},
  };
  for (const auto& [words, what] : rows) {
    const Outcome outcome = Longembed(words);
    EXPECT_EQ(outcome.status, kExitUsage) << what;
    EXPECT_THAT(outcome.err, StartsWith(std::string("longembed: ") + what));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

// CLI11's own messages are kept for other errors, even if a word looks like an option's value.
TEST(CommandLineUsageTest, OtherErrorsKeepCli11sMessages) {
  EXPECT_THAT(Longembed({"embed", "--windows", "absent.jsonl"}).err, HasSubstr("File does not exist: absent.jsonl"));
  EXPECT_THAT(Longembed({"embed", "absent.jsonl"}).err, HasSubstr("File does not exist: absent.jsonl"));
  EXPECT_THAT(Longembed({"embed", ::testing::TempDir().c_str()}).err, HasSubstr("is actually a directory"));
  EXPECT_THAT(Longembed({"embed", "--text", "--prompt_name", "--truncate", "x"}).err,
              HasSubstr("--truncate: x not in"));
  EXPECT_THAT(Longembed({"embed", "--timeout"}).err, HasSubstr("--timeout"));
}

TEST(CommandLineUsageTest, Version) {
  const Outcome outcome = Longembed({"--version"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_THAT(outcome.out, ::testing::MatchesRegex("longembed [0-9.]+\n"));
}

TEST_F(CommandLineTest, ALoneSurrogateIsAnErrorOfItsLine) {
  const std::string texts =
      "{\"id\":1,\"text\":\"a\"}\n{\"id\":2,\"text\":\"half \\ud83d emoji\"}\n{\"id\":3,\"text\":\"b\"}\n";
  const Outcome outcome = Embed({"--partial"}, texts);
  EXPECT_EQ(outcome.status, kExitSomeFailed);
  EXPECT_THAT(outcome.out, HasSubstr("{\"id\":3,\"embedding\""));
  EXPECT_THAT(outcome.out, HasSubstr("line 2: not a JSON object (at byte 28: invalid string: surrogate "));
  EXPECT_THAT(Embed({}, texts).err, HasSubstr("surrogate"));
}

// The contents of a .npy file: shape and values.
struct Matrix {
  std::string header;
  std::string bytes;
};

Matrix ReadNpy(const std::string& content) {
  EXPECT_THAT(content, StartsWith(std::string("\x93NUMPY\x01\x00\x76\x00", 10)));
  return {content.substr(10, 118), content.substr(std::min<size_t>(128, content.size()))};
}

TEST_F(CommandLineTest, WritesAMatrixForNumPy) {
  const std::string path = ::testing::TempDir() + "/vectors.npy";
  const Outcome outcome = Embed({"--out", path.c_str(), "--partial"}, Lines(3) + "{\"text\": \"bad\"}\n" + Lines(1));
  EXPECT_EQ(outcome.status, kExitSomeFailed) << outcome.err;
  const Matrix matrix = ReadNpy(ReadAll(path));
  EXPECT_THAT(matrix.header, StartsWith("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1), }"));
  EXPECT_THAT(matrix.header, EndsWith(" \n"));
  const float expected[] = {1, 2, 3, 1};
  EXPECT_EQ(matrix.bytes, std::string(reinterpret_cast<const char*>(expected), sizeof(expected)));
  std::istringstream lines(ReadAll(path + ".jsonl"));
  std::string line;
  for (const char* row : {"{\"id\":0,\"rows\":[0,1],\"tokens\":", "{\"id\":1,\"rows\":[1,2],",
                          "{\"id\":2,\"rows\":[2,3],", "{\"id\":4,\"error\":", "{\"id\":0,\"rows\":[3,4],"}) {
    ASSERT_TRUE(std::getline(lines, line));
    EXPECT_THAT(line, StartsWith(row));
  }
  EXPECT_FALSE(std::getline(lines, line));
}

TEST_F(CommandLineTest, NoTextsGiveAnEmptyMatrix) {
  const std::string path = ::testing::TempDir() + "/empty.npy";
  EXPECT_EQ(Embed({"--out", path.c_str()}, "").status, kExitOk);
  EXPECT_THAT(ReadNpy(ReadAll(path)).header, HasSubstr("'shape': (0, 0)"));
}

TEST_F(CommandLineTest, OptionsThatGiveNoMatrixAreRefused) {
  const std::string path = ::testing::TempDir() + "/refused.npy";
  const std::pair<std::vector<const char*>, const char*> rows[] = {
      {{"--resume"}, "--out: a .npy file cannot be combined with --resume"},
      {{"--output", "text"}, "--out: a .npy file cannot be combined with --output text"},
      {{"--encoding", "int8"}, "NumPy has no type for --encoding INT8; use float32, float16 or binary"},
      {{"--encoding", "bfloat16"}, "NumPy has no type for --encoding BFLOAT16"},
  };
  for (const auto& [flags, what] : rows) {
    std::vector<const char*> arguments{"--out", path.c_str(), "--text", "a"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = Embed(arguments, "");
    EXPECT_EQ(outcome.status, kExitUsage) << what;
    EXPECT_THAT(outcome.err, HasSubstr(what));
  }
  EXPECT_THAT(Embed({"--out", "/nonexistent/a.npy", "--text", "a"}, "").err,
              HasSubstr("--out: /nonexistent/a.npy cannot be written: No such file or directory"));
}

TEST_F(CommandLineTest, UnsupportedFileNamesOfOutputAreRefused) {
  for (const std::string name : {"vectors.parquet", "vectors.NPZ"}) {
    const std::string path = ::testing::TempDir() + "/" + name;
    const Outcome outcome = Embed({"--out", path.c_str(), "--text", "a"}, "");
    EXPECT_EQ(outcome.status, kExitUsage);
    EXPECT_THAT(outcome.err, HasSubstr("files are not written; write .npy, or JSON lines to convert"));
    EXPECT_FALSE(std::ifstream(path).is_open()) << path;
  }
  const std::string capitals = ::testing::TempDir() + "/VECTORS.NPY";
  EXPECT_EQ(Embed({"--out", capitals.c_str()}, "").status, kExitOk);
  EXPECT_THAT(ReadNpy(ReadAll(capitals)).header, HasSubstr("'shape': (0, 0)"));
}

TEST_F(CommandLineTest, ADashIsStandardInput) {
  const std::string path = ::testing::TempDir() + "/dash.jsonl";
  std::ofstream(path) << Lines(1);
  EXPECT_EQ(Embed({path.c_str(), "-", path.c_str()}, Lines(2)).out,
            Embed({}, Lines(1)).out + Embed({}, Lines(2)).out + Embed({}, Lines(1)).out);
}

TEST_F(CommandLineTest, ModelsAreShownWithTheirRecommendations) {
  v1::ListModelsResponse models;
  v1::Model& model = *models.add_models();
  model.set_name("small");
  service_.set_models(models);
  const std::vector<const char*> command{"models", "--server", address_.c_str(), "--output", "text"};
  EXPECT_THAT(Longembed(command).out, Not(HasSubstr("recommended")));
  EXPECT_THAT(Longembed(command).out, Not(HasSubstr("default prompt")));
  model.set_default_prompt_name("query");
  model.set_similarity_function("dot");
  model.set_trained_window(512);
  model.set_trained_window_source("max_seq_length of sentence_bert_config.json");
  for (const uint32_t size : {64, 128}) model.add_trained_dimensions(size);
  model.mutable_recommended_extension();  // An empty recommendation, which is to do nothing, is also a recommendation.
  model.mutable_recommended_multi_vector_extension()->mutable_windows()->set_tokens(128);
  (*model.mutable_recommendation_evidence())["set"] = "qmsum";
  service_.set_models(models);
  const std::string shown = Longembed(command).out;
  EXPECT_THAT(shown, HasSubstr("\n  recommended: {}\n"));
  EXPECT_THAT(
      shown,
      HasSubstr("\n  default prompt: query\n  similarity: dot\n  dimensions: 64, 128\n  trained for 512 tokens, by "
                "max_seq_length of sentence_bert_config.json; without EOS token\n"));
  EXPECT_THAT(shown,
              HasSubstr("\n  recommended for one vector per window: {\"windows\":{\"tokens\":128}}\n    set: qmsum\n"));
  const nlohmann::json object = nlohmann::json::parse(Longembed({"models", "--server", address_.c_str()}).out);
  EXPECT_EQ(object["recommended_multi_vector_extension"]["windows"]["tokens"], 128);
  EXPECT_EQ(object["recommendation_evidence"]["set"], "qmsum");
}

TEST(CommandLineUsageTest, AnAbsentServerIsReported) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "goes over gRPC, which is not instrumented";
#endif
  const Outcome outcome = Longembed({"models", "--server", "127.0.0.1:1", "--timeout", "1"});
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_THAT(outcome.err, StartsWith("longembed: the server 127.0.0.1:1 refuses the connection: "));
}

}  // namespace
}  // namespace longembed::client
