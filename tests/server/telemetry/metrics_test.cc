#include "server/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/time/clock.h"

namespace longembed {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, CountsWhatHappened) {
  Metrics metrics({.version = "1.2.3", .torch = "2.11.0"});
  ModelMetrics& model = metrics.ForModel("m");
  const Registration queue = metrics.ReadQueue(
      "m", [] { return QueueReading{.jobs = 2, .tokens = 70, .oldest = absl::Seconds(3), .running_batches = 1}; });
  metrics.SetQueueWaitLimit("m", absl::Seconds(7.5));
  model.CountInputs(2, 30, 5);
  model.ObserveTokenization(absl::Milliseconds(1));
  model.ObserveQueue(absl::Milliseconds(20));
  model.ObserveBatch(30, 2, absl::Milliseconds(40));
  metrics.RequestStarted("Embed");
  metrics.RequestStarted("Embed");
  metrics.RequestFinished("Embed", "OK", "m", absl::Milliseconds(61));
  const std::string text = metrics.Scrape();
  EXPECT_THAT(text, HasSubstr("longembed_build_info{torch=\"2.11.0\",version=\"1.2.3\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_inputs_total{model=\"m\"} 2"));
  EXPECT_THAT(text, HasSubstr("longembed_tokens_total{model=\"m\"} 30"));
  EXPECT_THAT(text, HasSubstr("longembed_truncated_tokens_total{model=\"m\"} 5"));
  EXPECT_THAT(text, HasSubstr("longembed_queue_jobs{model=\"m\"} 2"));
  EXPECT_THAT(text, HasSubstr("longembed_queue_tokens{model=\"m\"} 70"));
  EXPECT_THAT(text, HasSubstr("longembed_queue_oldest_seconds{model=\"m\"} 3"));
  EXPECT_THAT(text, HasSubstr("longembed_batches_running{model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_queue_wait_limit_seconds{model=\"m\"} 7.5"));
  EXPECT_THAT(text, HasSubstr("longembed_batch_sequences_sum{model=\"m\"} 2"));
  EXPECT_THAT(text, HasSubstr("longembed_requests_in_flight{method=\"Embed\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_requests_total{code=\"OK\",method=\"Embed\",model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_request_duration_seconds_bucket{method=\"Embed\",model=\"m\",le=\"0.1\"} 1"));
  EXPECT_THAT(text, ContainsRegex("process_resident_memory_bytes [1-9]"));
  EXPECT_THAT(text, ContainsRegex("process_open_fds [1-9]"));
}

TEST(MetricsTest, AsksAsLongAsTheRegistrationLives) {
  Metrics metrics({});
  Registration kept;
  {
    const Registration queue = metrics.ReadQueue("m", [] { return QueueReading{.jobs = 1}; });
    const Registration pending = metrics.ReadPendingBytes([] { return 5; });
    Registration moved = metrics.ReadQueue("n", [] { return QueueReading{.jobs = 2}; });
    kept = std::move(moved);
    EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_queue_jobs{model=\"m\"} 1"));
    EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_pending_bytes 5"));
  }
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("longembed_queue_jobs{model=\"m\"}")));
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("longembed_pending_bytes 5")));
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_queue_jobs{model=\"n\"} 2"));
  kept = Registration();
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("longembed_queue_jobs{")));
}

// What is looked at may go away as soon as the registration has.
TEST(MetricsTest, ARegistrationEndsAfterTheScrapeThatAsks) {
  Metrics metrics({});
  std::atomic<bool> asking = false, asked = false;
  std::optional<Registration> queue = metrics.ReadQueue("m", [&] {
    asking = true;
    absl::SleepFor(absl::Milliseconds(200));
    asked = true;
    return QueueReading{};
  });
  const std::jthread scrape([&metrics] { metrics.Scrape(); });
  while (!asking) std::this_thread::yield();
  queue.reset();
  EXPECT_TRUE(asked);
}

TEST(MetricsTest, KnowsWhetherCallsAreInFlight) {
  Metrics metrics({});
  metrics.RequestStarted("Embed");
  metrics.RequestStarted("Tokenize");
  EXPECT_EQ(metrics.in_flight(), 2);
  metrics.RequestFinished("Embed", "OK", "", absl::Milliseconds(1));
  metrics.RequestFinished("Tokenize", "INTERNAL", "", absl::Milliseconds(1));
  EXPECT_EQ(metrics.in_flight(), 0);
}

TEST(MetricsTest, CountsReloadsOfApiKeys) {
  Metrics metrics({});
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_api_key_reloads_total{result=\"refused\"} 0"));
  metrics.CountApiKeyReload(true);
  metrics.CountApiKeyReload(false);
  metrics.CountApiKeyReload(false);
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_api_key_reloads_total{result=\"ok\"} 1"));
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_api_key_reloads_total{result=\"refused\"} 2"));
}

TEST(MetricsTest, SaysWhenItCannotListen) {
  Metrics first({}), second({});
  const auto port = first.Listen("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  const auto taken = second.Listen("127.0.0.1:" + std::to_string(*port));
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
}

// The table in README.md and what a scrape shows are the same metrics.
TEST(MetricsTest, TheTableIsComplete) {
  Metrics metrics({});
  ModelMetrics& model = metrics.ForModel("m");
  model.CountInputs(1, 1, 1);
  model.CountClientTokens("c", 1);
  metrics.SetQueueWaitLimit("m", absl::Seconds(1));
  metrics.CountTlsReload(true);
  metrics.SetCertificateExpiry(absl::FromUnixSeconds(5));
  metrics.RequestStarted("Embed");
  metrics.RequestFinished("Embed", "OK", "m", absl::Milliseconds(1));
  std::set<std::string> scraped, documented;
  std::istringstream lines(metrics.Scrape());
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE ", 0) == 0) scraped.insert(line.substr(7, line.find(' ', 7) - 7));
  }
  std::ifstream file(LONGEMBED_METRICS_TABLE);
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (std::regex_search(line, match, std::regex("^\\| `([a-z_]+)`"))) documented.insert(match[1]);
  }
  EXPECT_EQ(scraped, documented);
}

}  // namespace
}  // namespace longembed
