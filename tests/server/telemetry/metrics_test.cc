#include "server/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

namespace longembed {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

TEST(MetricsTest, CountsWhatHappened) {
  Metrics metrics({.version = "1.2.3", .torch = "2.11.0"});
  ModelMetrics& model =
      metrics.ForModel("m", [] { return QueueReading{.jobs = 2, .tokens = 70, .oldest = absl::Seconds(3)}; });
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
  EXPECT_THAT(text, HasSubstr("longembed_batch_sequences_sum{model=\"m\"} 2"));
  EXPECT_THAT(text, HasSubstr("longembed_requests_in_flight{method=\"Embed\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_requests_total{code=\"OK\",method=\"Embed\",model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_request_duration_seconds_bucket{method=\"Embed\",model=\"m\",le=\"0.1\"} 1"));
  EXPECT_THAT(text, ContainsRegex("process_resident_memory_bytes [1-9]"));
  EXPECT_THAT(text, ContainsRegex("process_open_fds [1-9]"));
}

TEST(MetricsTest, ForgetsQueues) {
  Metrics metrics({});
  metrics.ForModel("m", [] { return QueueReading{.jobs = 1}; });
  metrics.ForgetQueues();
  EXPECT_THAT(metrics.Scrape(), ::testing::Not(HasSubstr("longembed_queue_jobs{")));
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
  ModelMetrics& model = metrics.ForModel("m", [] { return QueueReading{}; });
  model.CountInputs(1, 1, 1);
  model.CountClientTokens("c", 1);
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
