#include "server/telemetry/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "server/telemetry/log_writer.h"

namespace longembed {
namespace {

using ::testing::Each;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;

const LogSampler::SteadyTime kStart{std::chrono::hours(1)};

class LogTest : public ::testing::Test {
 protected:
  LogTest() {
    SetLogLevel(LogLevel::kInfo);
    SetLogFormat(LogFormat::kJson);
    ::testing::internal::CaptureStderr();
  }
  ~LogTest() override {
    SetLogLevel(LogLevel::kInfo);
    SetLogFormat(LogFormat::kJson);
  }
  // Returns everything that was logged, as lines.
  static std::vector<std::string> Lines() {
    EXPECT_TRUE(FlushLog(absl::Seconds(20)));
    const std::string all = ::testing::internal::GetCapturedStderr();
    std::vector<std::string> lines = absl::StrSplit(all, '\n');
    EXPECT_EQ(lines.back(), "") << "the last line does not end";
    lines.pop_back();
    return lines;
  }
};

TEST_F(LogTest, ALineIsJson) {
  Log(LogLevel::kWarning, "model ready", {{"model", "e5"}, {"seconds", 1.5}, {"tokens", int64_t{1} << 60}});
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], MatchesRegex("\\{\"time\":\"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z\","
                                     "\"level\":\"warning\",\"event\":\"model ready\",\"model\":\"e5\","
                                     "\"seconds\":1.5,\"tokens\":1152921504606846976\\}"));
}

TEST_F(LogTest, LevelsFilter) {
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    SetLogLevel(level);
    for (const LogLevel line : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
      EXPECT_EQ(LogEnabled(line), line >= level);
      Log(line, "event");
    }
  }
  EXPECT_THAT(Lines(), SizeIs(4 + 3 + 2 + 1));
}

// Text of clients, such as a model's name, may reach a field. Each log line must stay a single line of valid JSON.
TEST_F(LogTest, AnyBytesAreOneLineOfJson) {
  const std::vector<std::string> values{"two\nlines\r\n",
                                        std::string("nul\0byte", 8),
                                        "\x1b[31mred",
                                        "\"quoted\\\"",
                                        "\xff\xfe\xc3",
                                        "\xed\xa0\x80",
                                        "tab\tbell\a",
                                        "{}",
                                        "ü→𝄞",
                                        "\x7f\xc2\x9b"};
  for (const std::string& value : values) Log(LogLevel::kInfo, "event", {{"value", value}, {"after", int64_t{7}}});
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(values.size()));
  for (size_t i = 0; i < lines.size(); ++i) {
    const nlohmann::json line = nlohmann::json::parse(lines[i], nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(line.is_object()) << lines[i];
    EXPECT_EQ(line["after"], 7);
    const bool valid_utf8 = i != 4 && i != 5;
    if (valid_utf8) {
      EXPECT_EQ(line["value"], values[i]);
    }
  }
}

TEST_F(LogTest, NumbersThatJsonLacksAreNull) {
  Log(LogLevel::kInfo, "event", {{"a", std::nan("")}, {"b", std::numeric_limits<double>::infinity()}});
  EXPECT_THAT(Lines()[0], HasSubstr("\"a\":null,\"b\":null}"));
}

TEST_F(LogTest, TextIsForPeople) {
  SetLogFormat(LogFormat::kText);
  Log(LogLevel::kError, "it broke", {{"model", "e5"}, {"why", "no such file"}, {"tokens", int64_t{5}}, {"s", 0.5}});
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], EndsWith("Z  error  it broke  model=e5  why=\"no such file\"  tokens=5  s=0.5"));
}

TEST_F(LogTest, TextHasNoControlCharactersAndNoForgedLines) {
  SetLogFormat(LogFormat::kText);
  for (const char* value : {"x\n2026-01-01T00:00:00Z  error  forged", "\x1b[2J", "a\"b", "\xff\xfe", "\a\b\x01"}) {
    Log(LogLevel::kInfo, "event", {{"value", value}});
  }
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(5));
  for (const std::string& line : lines) {
    EXPECT_THAT(line, HasSubstr("  info  event  value="));
    for (const char c : line) EXPECT_FALSE(static_cast<unsigned char>(c) < 0x20) << line;
  }
}

TEST_F(LogTest, LinesOfThreadsDoNotMix) {
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < 200; ++i)
          Log(LogLevel::kInfo, "event", {{"text", std::string(300, static_cast<char>('a' + t))}});
      });
    }
  }
  const std::vector<std::string> lines = Lines();
  EXPECT_THAT(lines, SizeIs(800));
  for (const std::string& line : lines) ASSERT_TRUE(nlohmann::json::accept(line)) << line;
}

// Writes to a pipe that is read only on request.
class LogWriterTest : public ::testing::Test {
 protected:
  LogWriterTest() {
    std::signal(SIGPIPE, SIG_IGN);
    EXPECT_EQ(pipe(ends_), 0);
  }
  ~LogWriterTest() override {
    CloseReader();
    writer_.reset();
    if (ends_[1] >= 0) close(ends_[1]);
  }

  LogWriter& Writer(size_t capacity) {
    writer_ = std::make_unique<LogWriter>(ends_[1], capacity,
                                          [](int64_t count) { return absl::StrCat("dropped ", count, "\n"); });
    return *writer_;
  }
  // Adds lines until the pipe is full and some lines were dropped. The writer's thread may still have one buffer to
  // take.
  int Fill(LogWriter& writer, const std::string& line) {
    pollfd end{.fd = ends_[1], .events = POLLOUT, .revents = 0};
    int added = 0;
    for (; writer.dropped() == 0 || poll(&end, 1, /*timeout=*/0) != 0; ++added) {
      writer.Add(line);
      if (added % 100 == 0) absl::SleepFor(absl::Milliseconds(1));
    }
    return added;
  }
  // Reads until a line starts with `last`. Returns all lines.
  std::vector<std::string> ReadUntil(const std::string& last) {
    std::string all;
    char bytes[8192];
    while (all.find("\n" + last) == std::string::npos || all.back() != '\n') {
      const ssize_t count = read(ends_[0], bytes, sizeof bytes);
      if (count <= 0) break;
      all.append(bytes, static_cast<size_t>(count));
    }
    std::vector<std::string> lines = absl::StrSplit(all, '\n');
    lines.pop_back();
    return lines;
  }
  void CloseReader() {
    if (ends_[0] >= 0) close(std::exchange(ends_[0], -1));
  }

  int ends_[2] = {-1, -1};
  std::unique_ptr<LogWriter> writer_;
};

TEST_F(LogWriterTest, AStalledReaderBlocksNoThreadAndLostLinesAreReported) {
  // The number of lines that the buffer holds. The writer's thread may hold as many again.
  constexpr int kLines = 100;
  const std::string line = std::string(99, 'x') + "\n";
  LogWriter& writer = Writer(kLines * line.size());
  Fill(writer, line);
  for (int i = 0; i < 1000; ++i) writer.Add(line);
  EXPECT_GE(writer.dropped(), 1000 - 2 * kLines);
  EXPECT_FALSE(writer.Flush(absl::Milliseconds(1)));
  // Dropped lines are reported once, before the next line that is written.
  const std::jthread later([&writer] {
    writer.Flush(absl::Seconds(20));
    writer.Add("after\n");
    writer.Add("last\n");
  });
  const std::vector<std::string> lines = ReadUntil("last");
  ASSERT_GE(lines.size(), 4u);
  EXPECT_EQ(lines[lines.size() - 2], "after");
  // If the thread takes a buffer between two drops, it reports them in two lines.
  int64_t reported = 0;
  for (size_t i = 0; i + 2 < lines.size(); ++i) {
    if (int64_t count = 0; lines[i].starts_with("dropped ") && absl::SimpleAtoi(lines[i].substr(8), &count)) {
      reported += count;
    } else {
      ASSERT_EQ(lines[i] + "\n", line) << "line " << i << " is not whole";
    }
  }
  EXPECT_EQ(reported, writer.dropped());
}

TEST_F(LogWriterTest, HoldsNoMoreThanItsCapacity) {
  LogWriter& writer = Writer(1000);
  writer.Add(std::string(2000, 'x') + "\n");
  EXPECT_EQ(writer.dropped(), 1);
  writer.Add(std::string(900, 'y') + "\n");
  EXPECT_TRUE(writer.Flush(absl::Seconds(20)));
  EXPECT_EQ(writer.dropped(), 1);
}

TEST_F(LogWriterTest, ALineLongerThanAPipeTakesAtOnceComesWhole) {
  LogWriter& writer = Writer(1 << 20);
  const std::string lines[] = {"first\n", std::string(200'000, 'a') + "\n", std::string(3000, 'b') + "\n",
                               std::string(3000, 'c') + "\n", "last\n"};
  for (const std::string& line : lines) writer.Add(line);
  const std::vector<std::string> read = ReadUntil("last");
  ASSERT_THAT(read, SizeIs(5));
  for (size_t i = 0; i < 5; ++i) EXPECT_TRUE(read[i] + "\n" == lines[i]) << i;
}

TEST_F(LogWriterTest, ANonBlockingPipeLosesNothing) {
  fcntl(ends_[1], F_SETFL, O_NONBLOCK);
  LogWriter& writer = Writer(1 << 20);
  const std::string line = std::string(999, 'x') + "\n";
  for (int i = 0; i < 500; ++i) writer.Add(line);
  writer.Add("last\n");
  EXPECT_THAT(ReadUntil("last"), SizeIs(501));
  EXPECT_EQ(writer.dropped(), 0);
}

TEST_F(LogWriterTest, LinesThatTheDescriptorRefusesAreCounted) {
  LogWriter& writer = Writer(1 << 20);
  CloseReader();
  // Lines are added one by one, so that each refusal is known before the next line. The line that reports dropped lines
  // is refused as well, but is not counted.
  for (int64_t i = 1; i <= 3; ++i) {
    writer.Add("line\n");
    EXPECT_TRUE(writer.Flush(absl::Seconds(20)));
    EXPECT_EQ(writer.dropped(), i);
  }
}

TEST(LogSamplerTest, TakesTheFirstOfASecondAndCountsTheOthers) {
  LogSampler sampler;
  int64_t suppressed = -1;
  EXPECT_TRUE(sampler.Take(suppressed, kStart));
  EXPECT_EQ(suppressed, 0);
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(sampler.Take(suppressed, kStart + std::chrono::milliseconds(99 * i)));
  EXPECT_TRUE(sampler.Take(suppressed, kStart + std::chrono::seconds(1)));
  EXPECT_EQ(suppressed, 10);
  EXPECT_TRUE(sampler.Take(suppressed, kStart + std::chrono::seconds(60)));
  EXPECT_EQ(suppressed, 0);
}

TEST(LogSamplerTest, NothingIsLostBetweenThreads) {
  LogSampler sampler;
  std::atomic<int64_t> taken = 0, counted = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) {
          int64_t suppressed = 0;
          if (!sampler.Take(suppressed, kStart + std::chrono::milliseconds(10 * i))) continue;
          ++taken;
          counted += suppressed;
        }
      });
    }
  }
  int64_t last = 0;
  ASSERT_TRUE(sampler.Take(last, kStart + std::chrono::hours(1)));
  EXPECT_EQ(taken + counted + last, 4000);
}

}  // namespace
}  // namespace longembed
