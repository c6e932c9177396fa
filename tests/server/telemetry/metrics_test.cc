#include "server/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace longembed {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, CountsEvents) {
  Metrics metrics({.version = "1.2.3", .torch = "2.11.0"});
  ModelMetrics& model = metrics.ForModel("m");
  const Registration queue = metrics.ReadQueue(
      "m", [] { return QueueReading{.jobs = 2, .tokens = 70, .oldest = absl::Seconds(3), .running_batches = 1}; });
  metrics.SetQueueWaitLimit("m", absl::Seconds(7.5));
  model.CountInputs(2, 30, 5);
  model.ObserveTokenization(absl::Milliseconds(125));
  model.ObserveTokenizationWait(absl::Milliseconds(250));
  model.ObserveQueue(absl::Milliseconds(500));
  model.ObserveBatch(30, 2, absl::Milliseconds(750));
  model.CountEncoderFailure();
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
  EXPECT_THAT(text, HasSubstr("longembed_tokenization_duration_seconds_sum{model=\"m\"} 0.125\n"));
  EXPECT_THAT(text, HasSubstr("longembed_tokenization_wait_seconds_sum{model=\"m\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("longembed_queue_duration_seconds_sum{model=\"m\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("longembed_inference_duration_seconds_sum{model=\"m\"} 0.75\n"));
  EXPECT_THAT(text, HasSubstr("longembed_batch_tokens_sum{model=\"m\"} 30\n"));
  EXPECT_THAT(text, HasSubstr("longembed_batch_sequences_sum{model=\"m\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("longembed_encoder_failures_total{model=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("longembed_requests_in_flight{method=\"Embed\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_requests_total{code=\"OK\",method=\"Embed\",model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("longembed_request_duration_seconds_bucket{method=\"Embed\",model=\"m\",le=\"0.1\"} 1"));
  EXPECT_THAT(text, ContainsRegex("process_resident_memory_bytes [1-9]"));
  EXPECT_THAT(text, ContainsRegex("process_open_fds [1-9]"));
}

TEST(MetricsTest, ReadsGaugesWhileTheirRegistrationLives) {
  Metrics metrics({});
  Registration kept;
  {
    const Registration queue = metrics.ReadQueue("m", [] { return QueueReading{.jobs = 1}; });
    const Registration pending = metrics.ReadHeldBytes([] { return Metrics::HeldBytes{{"requests", 5}}; });
    Registration moved = metrics.ReadQueue("n", [] { return QueueReading{.jobs = 2}; });
    kept = std::move(moved);
    EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_queue_jobs{model=\"m\"} 1"));
    EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_held_bytes{kind=\"requests\"} 5"));
  }
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("longembed_queue_jobs{model=\"m\"}")));
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("longembed_held_bytes{kind=\"requests\"} 5")));
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_queue_jobs{model=\"n\"} 2"));
  kept = Registration();
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("longembed_queue_jobs{")));
}

// The observed object may be destroyed as soon as the registration is destroyed.
TEST(MetricsTest, ARegistrationEndsAfterTheScrapeInProgress) {
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

// Calls are refused for the wait of both queues, and replicas are scaled by this gauge.
TEST(MetricsTest, TheExpectedWaitIncludesThatForATokenizingThread) {
  Metrics metrics({});
  const Registration queue = metrics.ReadQueue("m", [] { return QueueReading{.expected_wait = absl::Seconds(2)}; });
  {
    const Registration tokenizer =
        metrics.ReadTokenizationQueue([] { return TokenizationReading{.tasks = 3, .longest_wait = absl::Seconds(4)}; });
    const std::string text = metrics.Scrape();
    EXPECT_THAT(text, HasSubstr("longembed_tokenization_queue_tasks 3"));
    EXPECT_THAT(text, HasSubstr("longembed_expected_wait_seconds{model=\"m\"} 6"));
  }
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_expected_wait_seconds{model=\"m\"} 2"));
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

// rate() misses the first event of a counter that appears with it.
TEST(MetricsTest, RefusalsHaveCountersBeforeTheFirst) {
  Metrics metrics({});
  for (const char* reason :
       {"pending_bytes", "client_pending_bytes", "concurrent_calls", "health_watches", "out_of_memory"}) {
    const std::string counter = std::string("longembed_rejected_total{model=\"\",reason=\"") + reason + "\"} ";
    EXPECT_THAT(metrics.Scrape(), HasSubstr(counter + "0\n"));
    metrics.CountRejected("", reason);
    EXPECT_THAT(metrics.Scrape(), HasSubstr(counter + "1\n"));
  }
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

TEST(MetricsTest, HasModelInfoAndSequencesByMethod) {
  Metrics metrics({});
  ModelMetrics& model = metrics.ForModel("m");
  metrics.SetModelInfo("m", {.architecture = "bert",
                             .precision = "bf16",
                             .engine = "native",
                             .kernels = "avx2",
                             .device = "cpu",
                             .dimensions = 384,
                             .trained_window = 512});
  model.CountSequences("", 2);
  model.CountSequences("ntk", 3);
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_model_info{architecture=\"bert\",device=\"cpu\",dimensions="
                                          "\"384\",engine=\"native\",kernels=\"avx2\","
                                          "model=\"m\",precision=\"bf16\",trained_window=\"512\"} 1"));
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_sequences_total{method=\"plain\",model=\"m\"} 2"));
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_sequences_total{method=\"ntk\",model=\"m\"} 3"));
}

TEST(MetricsTest, CountsSpansThatAreLost) {
  Metrics metrics({});
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_spans_dropped_total{reason=\"queue_full\"} 0"));
  metrics.CountDroppedSpans("export_failed", 7);
  EXPECT_THAT(metrics.Scrape(), HasSubstr("longembed_spans_dropped_total{reason=\"export_failed\"} 7"));
}

TEST(MetricsTest, SaysWhenItCannotListen) {
  Metrics first({}), second({});
  const auto port = first.Listen("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  const auto taken = second.Listen("127.0.0.1:" + std::to_string(*port));
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
}

// Sends the request. Returns the port's answer until it closes the connection.
std::string Ask(int family, int port, const std::string& request) {
  const int descriptor = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 address6{.sin6_family = AF_INET6, .sin6_port = htons(static_cast<uint16_t>(port))};
  address6.sin6_addr = in6addr_loopback;
  const bool four = family == AF_INET;
  std::string answer;
  if (connect(descriptor, four ? reinterpret_cast<sockaddr*>(&address) : reinterpret_cast<sockaddr*>(&address6),
              four ? sizeof address : sizeof address6) == 0 &&
      send(descriptor, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char bytes[4096];
    for (ssize_t count; (count = recv(descriptor, bytes, sizeof bytes, 0)) > 0;) {
      answer.append(bytes, static_cast<size_t>(count));
    }
  }
  close(descriptor);
  return answer;
}

std::string Get(const std::string& path) { return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"; }

TEST(MetricsPortTest, ServesTheTextAndNothingElse) {
  Metrics metrics({.version = "1.2.3"});
  const auto port = metrics.Listen("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  const std::string scraped = Ask(AF_INET, *port, Get("/metrics"));
  EXPECT_THAT(scraped, HasSubstr("HTTP/1.1 200 OK"));
  EXPECT_THAT(scraped, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8"));
  EXPECT_THAT(scraped, HasSubstr("longembed_build_info{torch=\"\",version=\"1.2.3\"} 1\n"));
  EXPECT_THAT(Ask(AF_INET, *port, Get("/")), HasSubstr("HTTP/1.1 404"));
  const std::string posted =
      Ask(AF_INET, *port, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
  EXPECT_THAT(posted, HasSubstr("HTTP/1.1 405"));
  EXPECT_THAT(Ask(AF_INET, *port, "nonsense\r\n\r\n"), Not(HasSubstr("200 OK")));
}

TEST(MetricsPortTest, ServesIpv6AndBothFamiliesOnTheWildcardAddress) {
  Metrics metrics({}), every({});
  const auto port = metrics.Listen("[::1]:0");
  if (!port.ok()) GTEST_SKIP() << "no IPv6 loopback here: " << port.status();
  EXPECT_THAT(Ask(AF_INET6, *port, Get("/metrics")), HasSubstr("HTTP/1.1 200 OK"));
  const auto every_port = every.Listen("[::]:0");
  ASSERT_TRUE(every_port.ok()) << every_port.status();
  EXPECT_THAT(Ask(AF_INET6, *every_port, Get("/metrics")), HasSubstr("HTTP/1.1 200 OK"));
  EXPECT_THAT(Ask(AF_INET, *every_port, Get("/metrics")), HasSubstr("HTTP/1.1 200 OK"));
}

// Scrapers that send half a request, or nothing, must not block others.
TEST(MetricsPortTest, StalledScrapersBlockNoOtherScraper) {
  Metrics metrics({});
  const auto port = metrics.Listen("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  std::vector<int> stalled;
  for (int i = 0; i < 8; ++i) {
    stalled.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(*port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(stalled.back(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::string half = "GET /metrics HTTP/1.1\r\nHost:";
    const size_t said = i % 2 == 0 ? half.size() : 0;
    ASSERT_EQ(send(stalled.back(), half.data(), said, MSG_NOSIGNAL), static_cast<ssize_t>(said));
  }
  EXPECT_THAT(Ask(AF_INET, *port, Get("/metrics")), HasSubstr("HTTP/1.1 200 OK"));
  for (const int descriptor : stalled) close(descriptor);
}

TEST(MetricsPortTest, HeadersAreBounded) {
  Metrics metrics({});
  const auto port = metrics.Listen("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  const std::string answer = Ask(AF_INET, *port, "GET /metrics HTTP/1.1\r\nX: " + std::string(1 << 20, 'x'));
  EXPECT_THAT(answer, Not(HasSubstr("200 OK")));
}

// The table in README.md and a scrape must contain the same metrics.
TEST(MetricsTest, TheTableIsComplete) {
  Metrics metrics({});
  ModelMetrics& model = metrics.ForModel("m");
  model.CountInputs(1, 1, 1);
  model.CountClientTokens("c", 1);
  model.CountSequences("ntk", 1);
  metrics.SetModelInfo("m", {});
  metrics.SetQueueWaitLimit("m", absl::Seconds(1));
  metrics.SetLoadRatio("m", 0.5);
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
