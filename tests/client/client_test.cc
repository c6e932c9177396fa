#include "client/client.h"

#include <gtest/gtest.h>

#include <stop_token>
#include <thread>

#include "absl/time/clock.h"
#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

class ClientTest : public ::testing::Test {
 protected:
  absl::StatusOr<v1::EmbedResponse> Embed(const CallOptions& options = {}, size_t bytes = 4) {
    v1::EmbedRequest request;
    request.add_inputs()->set_text(std::string(bytes, 'x'));
    Client client({.server = service_.address(), .api_key = "secret"});
    return client.Embed(request, options);
  }

  ScriptedService service_;
};

TEST_F(ClientTest, TriesAgainWhenUnavailable) {
  service_.FailNext({{grpc::UNAVAILABLE, "draining"}, ""});
  service_.FailNext({{grpc::UNAVAILABLE, "draining"}, "1"});
  const auto response = Embed();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->results(0).embeddings(0).values(0), 4);
  EXPECT_EQ(service_.calls(), 3);
  EXPECT_EQ(service_.authorization(), "Bearer secret");
}

// The number of attempts is that of deploy/client/retry_service_config.json.
TEST_F(ClientTest, GivesUpAfterTheLastAttempt) {
  for (int i = 0; i < 9; ++i) service_.FailNext({{grpc::UNAVAILABLE, "draining"}, "1"});
  EXPECT_EQ(Embed().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_.calls(), 5);
}

TEST_F(ClientTest, ObeysPushback) {
  // The delay is longer than the first delay of the retry policy.
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "overloaded"}, "1500"});
  const absl::Time started = absl::Now();
  EXPECT_TRUE(Embed().ok());
  EXPECT_GE(absl::Now() - started, absl::Milliseconds(1500));
  service_.FailNext({{grpc::UNAVAILABLE, "go away"}, "-1"});
  EXPECT_EQ(Embed().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_.calls(), 3);
}

// gRPC's default buffer for retries would be too small.
TEST_F(ClientTest, TriesLargeRequestsAgain) {
  service_.FailNext({{grpc::UNAVAILABLE, "draining"}, "1"});
  const auto response = Embed({}, 3 << 20);
  EXPECT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(service_.calls(), 2);
}

TEST_F(ClientTest, OtherErrorsAreFinal) {
  for (const auto code : {grpc::INVALID_ARGUMENT, grpc::INTERNAL, grpc::UNAUTHENTICATED, grpc::UNKNOWN}) {
    const int before = service_.calls();
    service_.FailNext({{code, "no"}, "1"});
    EXPECT_EQ(Embed().status().code(), static_cast<absl::StatusCode>(code));
    EXPECT_EQ(service_.calls() - before, 1);
  }
}

TEST_F(ClientTest, TheTimeoutIncludesRetries) {
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "overloaded"}, "60000"});
  const absl::Time started = absl::Now();
  const absl::Status status = Embed({.timeout = absl::Seconds(1)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(status.message(), "no answer within 1s");
  EXPECT_LT(absl::Now() - started, absl::Seconds(50));
}

TEST_F(ClientTest, ACallCanBeCancelledFromAnotherThread) {
  service_.StopReading();
  std::stop_source stop;
  const std::jthread canceller([&] {
    while (service_.calls() == 0) absl::SleepFor(absl::Milliseconds(1));
    stop.request_stop();
  });
  const CallOptions options{.timeout = absl::InfiniteDuration(), .stop = stop.get_token()};
  EXPECT_EQ(Embed(options).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Embed(options).status().code(), absl::StatusCode::kCancelled);  // Stopped before it began.
}

TEST_F(ClientTest, AWaitForARetryCanBeCancelled) {
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "overloaded"}, "600000"});
  std::stop_source stop;
  const std::jthread canceller([&] {
    while (service_.calls() == 0) absl::SleepFor(absl::Milliseconds(1));
    absl::SleepFor(absl::Milliseconds(100));
    stop.request_stop();
  });
  EXPECT_EQ(Embed({.timeout = absl::InfiniteDuration(), .stop = stop.get_token()}).status().code(),
            absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, AnApiKeyThatIsNotAValidHeaderIsRefused) {
  for (const char* key : {"a\nb", "schl\xc3\xbcssel", "a\x7f"}) {
    Client client({.server = service_.address(), .api_key = key});
    EXPECT_EQ(client.ListModels().status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace longembed::client
