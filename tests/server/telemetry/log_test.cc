#include "server/telemetry/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace longembed {
namespace {

using ::testing::Each;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

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
  // Everything that was logged, as lines.
  static std::vector<std::string> Lines() {
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

// What clients send may reach a field, such as a model's name: a line stays one line of valid JSON.
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

TEST_F(LogTest, TextHasNoControlCharactersAndNoLineOfAClients) {
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

TEST(LogSamplerTest, TakesTheFirstOfASecondAndCountsTheOthers) {
  LogSampler sampler;
  int64_t suppressed = -1;
  EXPECT_TRUE(sampler.Take(kStart, suppressed));
  EXPECT_EQ(suppressed, 0);
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(sampler.Take(kStart + absl::Milliseconds(99 * i), suppressed));
  EXPECT_TRUE(sampler.Take(kStart + absl::Seconds(1), suppressed));
  EXPECT_EQ(suppressed, 10);
  EXPECT_TRUE(sampler.Take(kStart + absl::Seconds(60), suppressed));
  EXPECT_EQ(suppressed, 0);
}

TEST(LogSamplerTest, GoesOnAfterTheClockWasSetBack) {
  LogSampler sampler;
  int64_t suppressed = -1;
  EXPECT_TRUE(sampler.Take(kStart, suppressed));
  EXPECT_FALSE(sampler.Take(kStart + absl::Milliseconds(1), suppressed));
  const absl::Time earlier = kStart - absl::Minutes(30);
  EXPECT_TRUE(sampler.Take(earlier, suppressed));
  EXPECT_EQ(suppressed, 1);
  EXPECT_FALSE(sampler.Take(earlier + absl::Milliseconds(999), suppressed));
  EXPECT_TRUE(sampler.Take(earlier + absl::Seconds(1), suppressed));
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
          if (!sampler.Take(kStart + absl::Milliseconds(10 * i), suppressed)) continue;
          ++taken;
          counted += suppressed;
        }
      });
    }
  }
  int64_t last = 0;
  ASSERT_TRUE(sampler.Take(kStart + absl::Hours(1), last));
  EXPECT_EQ(taken + counted + last, 4000);
}

}  // namespace
}  // namespace longembed
